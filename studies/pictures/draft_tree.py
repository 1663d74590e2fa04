"""Draw the tree of docs/tree.svg: a real round of the embedded pair, one that branches and fits on a page's width.

Usage: python studies/pictures/draft_tree.py [--prompt TEXT] [--tree-budget 16] [--output docs/tree.svg]
"""

import argparse
from pathlib import Path

from mlx_ddtree import draw_tree, load, stream_generate

PROMPT = "Write `keep_shorter_than_7(tags)` to filter a list so that only the tags shorter than 7 characters remain."


def turned(drawing):
    """Whether the path leaves the one that the drafter thought most of."""
    likeliest = [0]
    while drawing.children[likeliest[-1]]:
        likeliest.append(drawing.children[likeliest[-1]][0])
    return drawing.path != likeliest[: len(drawing.path)]


def telling(drawing):
    """How much there is to see: a path that turned off, that is long, in a tree with many ends; nothing that breaks off."""
    ends = sum(not children for children in drawing.children)
    whole = 'class="again"' not in drawing.svg()
    return whole, turned(drawing), min(len(drawing.path), 5), ends


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--tree-budget", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=120)
    parser.add_argument("--output", type=Path, default=Path("docs/tree.svg"))
    args = parser.parse_args()
    pair = load()
    stream = stream_generate(
        pair, [{"role": "user", "content": args.prompt}], args.max_tokens, tree_budget=args.tree_budget
    )
    drawing = max((draw_tree(response) for response in stream if response.nodes), key=telling)
    args.output.write_text(drawing.svg() + "\n", encoding="utf-8")
    print(drawing)


if __name__ == "__main__":
    main()

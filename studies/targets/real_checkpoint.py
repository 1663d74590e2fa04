"""Whether a checkpoint on this machine answers as stock mlx_lm does, token for token, by every method and without a drafter.

Usage: python studies/targets/real_checkpoint.py FOLDER [--draft-model DRAFTER] [--max-tokens 32] [--long 0] [--chat]

Prompts are a few texts to continue (with --chat: questions in the chat template), and with --long N one of N tokens that
goes past a model's windows.
"""

import argparse
from pathlib import Path

import mlx_ddtree  # noqa: F401  # isort: skip  (before MLX, for its BLAS)
from mlx_lm import stream_generate as stock_stream_generate

from mlx_ddtree import load, stream_generate
from mlx_ddtree.hub.load_target import compute_dtype, load_lazily
from mlx_ddtree.target.self_test import why_no_trees

TEXTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "one two three one two three one two",
    "def add(a, b):\n    return",
)
QUESTIONS = ("What is the capital of France?", "Give me three facts about rivers.", "Count from 1 to 12.")
WAYS = {
    "ar": {"method": "ar"},
    "auto": {},
    "tree of 8": {"tree_budget": 8},
    "block of 6": {"method": "dflash", "block_size": 6},
}


def prompts(tokenizer, args):
    """[(what it is, its tokens), ...]"""
    found = []
    for text in QUESTIONS if args.chat else TEXTS:
        chat = [{"role": "user", "content": text}]
        found.append(
            (
                text,
                tokenizer.apply_chat_template(chat, add_generation_prompt=True)
                if args.chat
                else tokenizer.encode(text),
            )
        )
    if args.long:
        river = tokenizer.encode("The river runs to the sea and ")
        found.append((f"{args.long} tokens", (river * (args.long // len(river) + 1))[: args.long]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--draft-model")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--chat", action="store_true")
    args = parser.parse_args()
    pair = load(args.folder, args.draft_model or False)
    stock, config = load_lazily(Path(args.folder))
    compute_dtype(stock, config)
    print(f"{type(pair.target).__name__}; trees: {why_no_trees(pair.target) or 'yes'}")
    texts = differ = 0
    for name, ids in prompts(pair.tokenizer, args):
        want = [r.token for r in stock_stream_generate(stock, pair.tokenizer, list(ids), max_tokens=args.max_tokens)]
        for way, options in WAYS.items():
            got, last = [], None
            for last in stream_generate(pair, list(ids), max_tokens=args.max_tokens, **options):
                got += last.tokens
            texts += 1
            differ += got != want
            print(
                f"{name[:40]!r:44} {way:10} {'same' if got == want else 'DIFFERENT'}, {last.mean_acceptance_length:.2f} a round",
                flush=True,
            )
    print(f"\n{differ} of {texts} texts differ")


if __name__ == "__main__":
    main()

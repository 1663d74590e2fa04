"""Which of mlx-lm's model files verify draft trees: the test that a model passes when it is loaded, on a tiny instance of each.

Usage: python studies/targets/every_model.py [NAME ...]

Every instance is random, in float32, and is tested behind 7 and behind 29 tokens, beyond the windows of 12 that the
tiny configs have.  What could not be built here stands in the table with the reason.
"""

import argparse
import sys
from pathlib import Path

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.target import PathTarget, TreeTarget
from mlx_ddtree.target.self_test import why_no_trees

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.every_model import NOT_HERE, every_model, model_files  # noqa: E402

CONTEXTS = (7, 29)
TREE = "tree"


def verdict(name: str) -> tuple[str, str]:
    """(tree, plain or untested; how, or why not)."""
    if name in NOT_HERE:
        return "untested", NOT_HERE[name]
    model = every_model(name)
    try:
        target = TreeTarget(model)
    except UnsupportedModelError as error:
        return "plain", str(error)
    against = why_not(target)
    if against is None:
        return TREE, states_of(target)
    if why_not(PathTarget(model)) is None:
        return TREE, f"every path through the whole model: {against.partition(';')[0]}"
    return "plain", against


def why_not(target: TreeTarget) -> str | None:
    """What the test finds against this target's trees behind the contexts; None: nothing."""
    reasons = [why_no_trees(target, context) for context in CONTEXTS]
    # Some models' own forwards of several rows differ from single ones past a window; the short context then decides.
    if reasons[0] is not None:
        return reasons[0]
    if reasons[1] is not None and "too coarse" not in reasons[1]:
        return f"behind {CONTEXTS[1]} tokens: {reasons[1]}"
    return None


def states_of(target: TreeTarget) -> str:
    """How its recurrent layers verify, where it has some."""
    if target.asked.replays:
        return "recurrent layers run every path"
    closed = any(getattr(module, "closed_form", False) for module in target.stack.modules())
    return "recurrent layers in closed form" if closed else ""


def table() -> str:
    """The table of docs/targets.md."""
    lines = ["| mlx-lm's file | verifies | how, or why not |", "|---|---|---|"]
    for name in model_files():
        kind, why = verdict(name)
        lines.append(f"| {name} | {kind} | {why} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names or model_files()
    counts: dict[str, int] = {}
    for name in names:
        kind, why = verdict(name)
        counts[kind] = counts.get(kind, 0) + 1
        print(f"| {name} | {kind} | {why} |", flush=True)
    print(f"\n{len(names)} files: {', '.join(f'{number} {kind}' for kind, number in sorted(counts.items()))}")


if __name__ == "__main__":
    main()

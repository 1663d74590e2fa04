"""How far drafts from memory alone walk: tokens a round on held-out answers, by how many earlier answers are remembered.

    python studies/budget/memory_walk.py --memory answers.jsonl --held held.jsonl

Both files have an answer a line, {"prompt_tokens": [...], "tokens": [...]}, of one model at temperature 0; no model runs
here.  Chances are calibrated as in decoding, by the rounds before.  Times are processor time of this program.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from time import thread_time

from mlx_ddtree.budget.calibration import RecallCalibration
from mlx_ddtree.budget.copies import Copies
from mlx_ddtree.budget.suffixes import END, SuffixIndex
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.lattice import NextTokens, best_chain

CHAIN = 8
BUDGETS = (8, 16, 32)
LEAD = 4
"""Tokens of a prompt's end that are remembered before its answer."""


def read_answers(path: Path) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) of every line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [(record["prompt_tokens"], record["tokens"]) for record in records]


def remember(answers: list[tuple[list[int], list[int]]]) -> SuffixIndex:
    """An index of the answers, each behind the end of its prompt."""
    index = SuffixIndex(capacity=1 << 20)
    for prompt, tokens in answers:
        index.extend([*prompt[-LEAD:], *tokens, END])
    return index


def accepted(first: NextTokens, follow: list[int], nodes: int) -> int:
    """Tokens of `follow` that a tree of so many nodes holds from its root on; 0 nodes: the best chain of CHAIN."""
    if nodes == 0:
        chain, _ = best_chain(first)
        count = 0
        while count < min(len(follow), CHAIN, len(chain)) and chain[count] == follow[count]:
            count += 1
        return count
    tree = grow_tree(-2, first, nodes)
    children: dict[tuple[int, int], int] = {}
    for node, (parent, token) in enumerate(zip(tree.parents.tolist(), tree.token_ids.tolist(), strict=True)):
        children[parent, token] = node
    node = count = 0
    while count < len(follow) and (node, follow[count]) in children:
        node = children[node, follow[count]]
        count += 1
    return count


def walk(held: list[tuple[list[int], list[int]]], memory: list[SuffixIndex], nodes: int) -> tuple[float, float]:
    """Tokens a round over all held answers, and milliseconds a round of looking up, building and learning."""
    calibration = RecallCalibration()
    tokens = rounds = 0
    seconds = 0.0
    for prompt, answer in held:
        copies = Copies(calibration, memory)
        place = 1
        while place < len(answer):
            started = thread_time()
            recalled = copies.after([*prompt, *answer[:place]], beside_drafter=False)
            first = NextTokens() if recalled is None else copies.lattice(recalled)
            count = accepted(first, answer[place:], nodes)
            if recalled is not None:
                copies.learn(recalled, answer[place : place + count + 1])
            seconds += thread_time() - started
            emitted = min(count + 1, len(answer) - place)
            tokens += emitted
            place += emitted
            rounds += 1
    return tokens / rounds, 1e3 * seconds / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=Path, required=True, help="answers that are remembered")
    parser.add_argument("--held", type=Path, required=True, help="answers that are walked")
    parser.add_argument("--answers", type=int, nargs="+", default=[0, 500, 1000, 2900])
    args = parser.parse_args()
    held = read_answers(args.held)
    prompts = {tuple(prompt) for prompt, _ in held}
    known = [answer for answer in read_answers(args.memory) if tuple(answer[0]) not in prompts]
    random.Random(0).shuffle(known)
    print(f"{len(held)} held-out answers, {sum(len(tokens) for _, tokens in held)} tokens")
    names = [f"chain {CHAIN}", *(f"tree {nodes}" for nodes in BUDGETS)]
    print("answers remembered  tokens  " + "  ".join(f"{name:>8}" for name in names) + "  ms a round (largest tree)")
    for count in args.answers:
        memory = remember(known[:count])
        results = [walk(held, [memory] if count else [], nodes) for nodes in (0, *BUDGETS)]
        rates = "  ".join(f"{rate:8.2f}" for rate, _ in results)
        print(f"{min(count, len(known)):18}  {len(memory):6}  {rates}  {results[-1][1]:.2f}", flush=True)


if __name__ == "__main__":
    main()

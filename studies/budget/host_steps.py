"""What the host's small steps of a round take, one by one, without a model.

Usage: python studies/budget/host_steps.py [--vocab 8192] [--repeats 300] [--only WORD ...] [--json]

Every step runs on made-up logits and outcomes of the embedded pair's sizes (15 drafted positions, a vocabulary of 8192)
through the package's own functions.  Steps take turns, so that a busy moment falls on all of them; the least and the
median time of each in milliseconds.  To compare two versions, run the file of one with PYTHONPATH at the other.

choose:    the target's choice after each of 9 rows, and whether it is a near tie; by numpy where the processor decodes
top-k:     candidates of the drafted positions from logits
tree:      the tree of so many nodes from logits, ancestor mask included
rows:      what the target's attention is told of 9 rows: words, depths and a mask
planner:   the planner's calls of one drafted round, of one that copies, and what both learn
save:      the profile's file
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from mlx_ddtree.budget.cost import ROWS, CostTable
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.profile import ParityBounds, Profile
from mlx_ddtree.budget.proposal import Outcome
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.sampling import choose_tokens
from mlx_ddtree.kernels.topk import lead_over_others, top_k_log_probs
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.terminal import table_text
from mlx_ddtree.tree import accept, build_tree
from mlx_ddtree.tree.lattice import Candidates
from mlx_ddtree.tuning import store

import mlx.core as mx  # isort: skip

BLOCK = 16
CONTEXT = 300
PATH = 4
"""Nodes of an accepted path."""
Step = Callable[[], object]


def made_up_logits(rows: int, vocab: int, seed: int) -> mx.array:
    """Logits (rows, vocab) of which the best are fairly sure, as a drafter's are."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(rows, vocab))
    logits[np.arange(rows), rng.integers(0, vocab, rows)] += 12
    made = mx.array(logits.astype(np.float32))
    mx.eval(made)
    return made


def steps(vocab: int, folder: Path) -> dict[str, Step]:
    """Every step by its name."""
    drafted = made_up_logits(BLOCK - 1, vocab, 0)
    verified = made_up_logits(9, vocab, 1)
    tree = build_tree(0, *top_k_log_probs(drafted, 8), 8)
    sampler = Sampler()

    def choose() -> object:
        choices = choose_tokens(verified, tree, CONTEXT, [], sampler, (), 0.01)
        mx.eval(choices)
        return choices.token_ids.tolist(), choices.close.tolist()

    def rows() -> object:
        told = TreeRows(tree, CONTEXT, len(tree))
        return told.positions, told.mask(CONTEXT)

    def choose_by_numpy() -> object:
        read = np.asarray(verified)
        token_ids = read.argmax(axis=1).tolist()
        return token_ids, [lead_over_others(read[node], token_ids[node]) < 0.01 for node in range(PATH)]

    found: dict[str, Step] = {"choose 9, by MLX": choose, "choose 9, by numpy": choose_by_numpy}
    for k in (1, 16, 64):
        found[f"top-k {k}"] = lambda k=k: top_k_log_probs(drafted, k)
    for nodes in (16, 64):
        found[f"tree {nodes}"] = lambda n=nodes: build_tree(0, *top_k_log_probs(drafted, n), n).ancestor_mask()
    most = top_k_log_probs(drafted, 64)
    found["tree 64, heap and mask"] = lambda: build_tree(0, *most, 64).ancestor_mask()
    found["ancestors 9"] = tree.ancestor_mask
    found["rows 9"] = rows
    return found | planner_steps(drafted) | {"save": save_step(folder)}


def new_planner(path: Path | None = None) -> Planner:
    """A planner on the costs of a machine where rows are cheap, with the blocks of a drafter of 16."""
    verify = [0.02 + 0.0002 * n for n in ROWS]
    cost = CostTable(
        list(ROWS), [64, 1024], [verify, verify], [verify, verify], [0.02, 0.021], {4: 0.003, 8: 0.004, 16: 0.005}
    )
    return Planner(Profile(cost, ParityBounds(), BLOCK, path), greedy=True)


def planner_steps(drafted: mx.array) -> dict[str, Step]:
    """A round's calls, in their order, on one planner that goes on learning."""
    planner = new_planner()
    candidates = Candidates(*top_k_log_probs(drafted, planner.top_k))
    rng = np.random.default_rng(2)
    text = rng.integers(0, 50, CONTEXT // 2).tolist()
    text += text[: CONTEXT // 2]  # what comes next stands earlier in it
    copy = planner.copy_after(text)
    assert copy is not None
    proposals = {name: planner.with_draft(text[-1], candidates, c, CONTEXT) for name, c in (("", None), ("copy", copy))}
    follow = [*candidates.token_ids[:4, 0].tolist(), -1, *[-1] * BLOCK]

    def before() -> object:
        found = planner.copy_after(text)
        planner.without_draft(text[-1], found, CONTEXT)
        planner.pause(CONTEXT)
        return planner.next_block_size(CONTEXT), planner.unread_block(CONTEXT)

    def learns(name: str) -> Step:
        proposal = proposals[name]
        chosen = [follow[d] if d < len(follow) else -1 for d in proposal.tree.depths.tolist()]
        path = accept(proposal.tree, chosen)
        outcome = Outcome([chosen[node] for node in path], CONTEXT, 0.03, 0.02, 0.005)
        return lambda: planner.learn(proposal, outcome)

    return {
        "planner before the draft": before,
        "planner with_draft": lambda: planner.with_draft(text[-1], candidates, None, CONTEXT),
        "planner with_draft, copy": lambda: planner.with_draft(text[-1], candidates, copy, CONTEXT),
        "planner learn": learns(""),
        "planner learn, copy": learns("copy"),
    }


def save_step(folder: Path) -> Step:
    """Writing the file of a profile that has learned something of both kinds of choices."""
    profile = new_planner(folder / "profile.json").profile
    rng = np.random.default_rng(3)
    for greedy in (True, False):
        calibration = profile.draft_calibration(greedy)
        calibration.hits += rng.random(calibration.hits.shape)
        calibration.expected += rng.random(calibration.hits.shape)
        survival = profile.survival(greedy)
        survival.hits = rng.random(len(survival.hits)).tolist()
        survival.trials = [1.0] * len(survival.trials)
    return lambda: store.save(profile)


def measure(found: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every repetition of every step."""
    spent: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(repeats + 3):
        for name, step in found.items():
            started = perf_counter()
            step()
            if turn >= 3:  # the first ones warm up
                spent[name].append(1e3 * (perf_counter() - started))
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--only", nargs="+", default=[""], help="steps whose names have one of these words")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = steps(args.vocab, Path(folder))
        wanted = {name: step for name, step in found.items() if any(word in name for word in args.only)}
        spent = measure(wanted, args.repeats)
    table = [
        {"step": name, "least ms": round(min(ms), 4), "median ms": round(median(ms), 4)} for name, ms in spent.items()
    ]
    print(json.dumps(table) if args.json else table_text(table))


if __name__ == "__main__":
    main()

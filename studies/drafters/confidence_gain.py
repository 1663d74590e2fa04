"""Whether a drafter's confidence head improves the corrected chances of its drafts: tokens a round at equal nodes.

Usage: python studies/drafters/confidence_gain.py DRAFTER PROMPTS.jsonl [--test 100] [--max-tokens 96] [--temps 0 1]

DRAFTER: a folder with a DSpark drafter that has a confidence head (studies/drafters/layout_gain.py trains one).

Drafts at every place of the target's answers are walked round by round, and each way of correcting chances learns from
the rounds that it walks.  The first half of the prompts teaches; tokens a round are counted on the second.

    as drafted         the drafter's own probabilities
    corrected          by depth, probability and spine, as budget/calibration.py does
    confidence         corrected, and then by hits per expected hit in bins of the head's confidence
    confidence alone   by these bins, without the others

fixed: trees of so many nodes in every round.  shared: nodes of a chance above a threshold, which is such that a round
has so many on average, as a planner with a price of a node builds them.
log loss: of the chance of the best child at every accepted node, in nats, with 8 nodes a round.
"""

import argparse
import json
from pathlib import Path

import mlx_ddtree  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
import numpy as np
from layout_gain import answers
from markov_head import drafts, features_of, follow

from mlx_ddtree.budget.calibration import DECAY, HIGHEST, DraftCalibration
from mlx_ddtree.decoding.draft import finish_draft, start_candidates
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.lattice import candidate_lattice

NODES = (4, 8, 16)
LARGEST = 32
EDGES = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98])
"""Between the bins of confidence."""
PSEUDO_HITS = 4.0
WAYS = {
    "as drafted": (False, False),
    "corrected": (True, False),
    "confidence": (True, True),
    "confidence alone": (False, True),
}


def confidences(pair, root, token_ids, hidden):
    """(L, K): the head's word on each position after each candidate before it."""
    drafter = pair.drafter
    parents = np.concatenate([np.full((1, token_ids.shape[1]), root), token_ids[:-1]])
    seen = mx.broadcast_to(hidden[:, None], (*parents.shape, hidden.shape[-1]))
    if drafter.config.confidence.with_markov:
        seen = mx.concatenate([seen, drafter.markov_head.markov_w1(mx.array(parents))], axis=-1)
    return np.array(mx.sigmoid(drafter.confidence_head(seen).astype(mx.float32)))


def record(pair, texts):
    """[(answer, [(candidates, confidences), ...]), ...]"""
    rows = []
    for prompt, tokens in texts:
        drafted = []
        places = range(len(prompt), len(tokens) - 1)
        for place, hidden in drafts(pair, tokens, places, features_of(pair, tokens)):
            found = finish_draft(start_candidates(pair, mx.array(tokens[place]), hidden, 16))
            drafted.append((found, confidences(pair, tokens[place], found.token_ids, hidden)))
        rows.append((tokens[len(prompt) :], drafted))
    return rows


class Way:
    """A way of correcting scores, which learns.

    hits, expected: (2, L, bins) of confidence; on the spine and off it.
    """

    def __init__(self, length, by_table, by_confidence):
        self.table = DraftCalibration(length) if by_table else None
        self.by_confidence = by_confidence
        self.hits = np.zeros((2, length, len(EDGES) + 1))
        self.expected = np.zeros_like(self.hits)
        self.losses = []

    def corrected(self, scores, chances):
        """Scores (L, ..., K) of rows with chances (L, ...), on the spine and off it."""
        before = self.by_the_table(scores)
        if not self.by_confidence:
            return before
        pooled = (self.hits.sum(1) + PSEUDO_HITS) / (self.expected.sum(1) + PSEUDO_HITS)
        ratios = (self.hits + PSEUDO_HITS * pooled[:, None]) / (self.expected + PSEUDO_HITS)
        depths = np.arange(len(scores)).reshape(-1, *[1] * (chances.ndim - 1))
        both = []
        for side, own in enumerate(before):
            moved = own + np.log(ratios[side, depths, EDGES.searchsorted(chances)])[..., None]
            total = np.exp(moved).sum(axis=-1, keepdims=True)
            both.append(moved - np.log(np.maximum(total / HIGHEST, 1.0)))
        return tuple(both)

    def by_the_table(self, scores):
        return (scores, scores) if self.table is None else self.table.apply(scores)

    def learn(self, candidates, chances, chosen):
        # 1. Which candidate was right at each accepted node, and what was said of it.
        along = candidates.along(chosen)
        parents = [0]
        for ids, token in zip(candidates.token_ids, chosen, strict=False):
            if token not in ids:
                break
            parents.append(int(np.flatnonzero(ids == token)[0]))
        count = len(along.token_ids)
        told = chances[np.arange(count), parents[:count]]
        ranks = []
        for row, token in zip(along.token_ids.tolist(), chosen, strict=False):
            ranks.append(row.index(token) if token in row else len(row))
        off = np.array([any(ranks[:node]) for node in range(count)])
        # 2. The chance of the best child.
        said = np.where(off[:, None], *self.corrected(along.log_probs, told)[::-1])
        best = np.clip(np.exp(said.max(axis=-1)), 1e-6, 1 - 1e-6)
        self.losses += (-np.log(np.where(np.array(ranks) == 0, best, 1 - best))).tolist()
        # 3. Hits and what the table had expected of all candidates.
        before = np.where(off[:, None], *self.by_the_table(along.log_probs)[::-1])
        self.hits *= DECAY
        self.expected *= DECAY
        cells = off.astype(int), np.arange(count), EDGES.searchsorted(told)
        np.add.at(self.expected, cells, np.exp(before).sum(axis=-1))
        np.add.at(self.hits, cells, np.array(ranks) < before.shape[1])
        if self.table is not None:
            self.table.update(along.log_probs, range(count), off, ranks)


def walk(rows, way, cut):
    """(tokens a round, nodes a round); cut: from a tree of LARGEST nodes to how many of them are verified."""
    emitted = rounds = nodes = 0
    for answer, drafted in rows:
        place = 0
        while place < len(drafted):
            candidates, chances = drafted[place]
            lattice = candidate_lattice(candidates.token_ids, *way.corrected(candidates.log_probs, chances))
            tree = grow_tree(answer[place], lattice, LARGEST)
            tree = tree.prefix(cut(tree))
            truth = answer[place + 1 :]
            accepted = follow(tree, truth)
            way.learn(candidates, chances, truth[: accepted + 1])
            place += accepted + 1
            emitted += accepted + 1
            rounds += 1
            nodes += len(tree) - 1
    return emitted / rounds, nodes / rounds


def play(rows, name, cut):
    """(tokens a round, nodes a round, log loss) on the second half of the rows."""
    length = len(rows[0][1][0][0].token_ids)
    way = Way(length, *WAYS[name])
    half = len(rows) // 2
    walk(rows[:half], way, cut)
    way.losses = []
    return *walk(rows[half:], way, cut), float(np.mean(way.losses))


def shared(rows, name, wanted, steps):
    """Tokens a round where a threshold on chances gives `wanted` nodes a round; the threshold is found by halving."""
    low, high = np.log(1e-4), 0.0
    points = []
    for _ in range(steps):
        threshold = (low + high) / 2
        points.append(play(rows, name, lambda tree, t=threshold: int((tree.log_weights[1:] > t).sum()))[:2])
        if points[-1][1] > wanted:
            low = threshold
        else:
            high = threshold
    taus, nodes = np.array(sorted(points, key=lambda point: point[1])).T
    return float(np.interp(wanted, nodes, taus))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drafter")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--temps", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--steps", type=int, default=5, help="of the search for a threshold")
    args = parser.parse_args()
    pair = mlx_ddtree.load(args.model, args.drafter)
    rows = [json.loads(line) for line in args.prompts.read_text(encoding="utf-8").splitlines()][: args.test]
    columns = [f"fixed {n}" for n in NODES] + [f"shared {n}" for n in NODES]
    print(f"| T | chances | log loss | {' | '.join(columns)} |")
    for temp in args.temps:
        recorded = [row for row in record(pair, answers(pair, rows, args.max_tokens, temp)) if row[1]]
        for name in WAYS:
            fixed = [play(recorded, name, lambda tree, n=n: n) for n in NODES]
            free = [shared(recorded, name, n, args.steps) for n in NODES]
            taus = " | ".join(f"{tau:.3f}" for tau in [*(found[0] for found in fixed), *free])
            print(f"| {temp:g} | {name} | {fixed[1][2]:.3f} | {taus} |", flush=True)


if __name__ == "__main__":
    main()

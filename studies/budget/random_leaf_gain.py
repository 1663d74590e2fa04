"""What random leaves would add to the acceptance length above temperature 0, at the same number of nodes.

Usage: python studies/budget/random_leaf_gain.py [PROMPTS.jsonl] [--draft-model DIR] [--count 48] [--json OUT.json]

The rule.  Let H be a node's children in the tree, p the target's distribution after it and q' the drafter's
outside H, renormalised.  The leaf is X ~ q', drawn before p is known, and accepted with probability
min(1, p(X) / q'(X)); otherwise the next token comes from p on H and max(0, p - q') outside.  A child is so
followed as often as without a leaf, with probability p(H), and X is accepted with probability
mass = sum min(p, q') outside H, which ends the round one token later: a leaf adds exactly its mass at the
nodes that the round reaches.  Given that the text's next token y lies outside H, y was X with probability
min(1, q'(y) / p(y)).

The trees.  Of n nodes, the n - k heaviest stay and k become leaves, one at each of the k nodes with the
largest c w (1 - q(H)): w is the node's path probability and c what is expected of the leaf's mass as a
share of 1 - q(H).  k is the number with the largest sum of weights and estimates.

What is measured.  The target samples an answer at each temperature; every position is drafted from.  Both
estimates of tau are exact in expectation over the texts:

  tau     every position counts once; each step along the text counts by its probability, not by its outcome
  rounds  the rounds that decoding makes: the probability that one starts at a position, carried along the text

The second can be had offline for the leaves too, as the text does not depend on which of its tokens came
from a leaf.  Positions whose whole block is not in the text are left out.  "+-" is a standard error over
prompts.  "placed" is the share of trees with a leaf, "leaves" their mean number; at the leaves that the text
passes, "mass" is the mean, "caught" its share of the probability of leaving the tree there, and "true c" its
share of 1 - q(H).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mlx_ddtree import load
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.terminal import table_text
from mlx_ddtree.training.chat_format import ChatFormat
from mlx_ddtree.tree import build_tree

import mlx.core as mx  # isort: skip

TEMPERATURES = (0.5, 0.7, 1.0)
BUDGETS = (4, 8, 16, 32)
OVERLAPS = (0.3, 0.5, 0.7, 0.9)  # c
TOP_K = 16


def tempered(logits, temp):
    """(n, V) logits -> probabilities."""
    scaled = np.asarray(logits.astype(mx.float32)) / temp
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return scaled / scaled.sum(axis=-1, keepdims=True)


def sample_answer(pair, prompt, temp, max_tokens, rng):
    """The text, p[i] that its token i was drawn from, and q[i] (L, V), the draft with token i as the root."""
    target, drafter = pair.target, pair.drafter
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, prompt, 512)
    masks = [drafter.config.mask_token_id] * (drafter.config.block_size - 1)
    text, p, q = [], [], []
    while True:
        hidden, features = target.forward(mx.array([[state.root]]), state.caches.target)
        p.append(tempered(target.unembed(hidden[0]), temp)[0])
        state.root = int(np.searchsorted(p[-1].cumsum(), rng.random() * p[-1].sum()))
        text.append(state.root)
        if len(text) == max_tokens or state.root in pair.tokenizer.eos_token_ids:
            return text, p, q
        state.append_features(features)
        block = target.embed(mx.array([[state.root, *masks]]))
        hidden = drafter(block, state.take_features(), state.caches.drafter)
        q.append(tempered(drafter.scale_logits(target.unembed(hidden[0, 1:])), temp))


class Root:
    """One position's draft, and the target along the text behind it.

    text: the root and the L tokens after it; p, q: (L, V), of those L tokens.
    """

    def __init__(self, text, p, q):
        self.text, self.p, self.q = text, p, q
        ids = np.argpartition(-q, TOP_K, axis=-1)[:, :TOP_K]
        self.ids = np.take_along_axis(ids, np.argsort(-np.take_along_axis(q, ids, axis=-1), axis=-1), axis=-1)
        best = np.take_along_axis(q, self.ids, axis=-1)
        tree = build_tree(text[0], self.ids, np.log(np.maximum(best, 1e-30)), max(BUDGETS))
        self.child = {(int(tree.parents[i]), int(tree.token_ids[i])): i for i in range(1, len(tree))}
        self.phi, self.known = tree.expected_accepted(), {}
        weights = np.exp(tree.log_weights.astype(np.float64))
        share = np.pad(best.cumsum(axis=-1, dtype=np.float64), ((0, 1), (1, 0)))  # q of the j best of a depth
        share[-1] = 1.0  # no leaf behind the block
        self.counts, self.order, self.gains = [], [], []
        for stop in range(1, len(tree) + 1):  # prefixes of the pop order
            counts = np.bincount(tree.parents[1:stop], minlength=stop)
            estimate = weights[:stop] * np.maximum(1 - share[tree.depths[:stop], counts], 0)
            self.counts.append(counts.tolist())
            self.order.append(np.argsort(-estimate, kind="stable"))
            self.gains.append(np.concatenate([[0.0], np.cumsum(estimate[self.order[-1]])]))

    def place(self, nodes, c):
        """(nodes that stay, where the leaves are); none with c = 0."""
        swaps = range(min(nodes, (nodes + 1) // 2) + 1)
        k = int(np.argmax([self.phi[nodes - k] + c * self.gains[nodes - k][k] for k in swaps]))
        return nodes - k, set(self.order[nodes - k][:k].tolist())

    def leaf(self, depth, children):
        """p(H), the leaf's mass, q outside H, and the probability that the text's next token was the leaf."""
        if (depth, children) not in self.known:
            p, q, token = self.p[depth], self.q[depth].astype(np.float64), self.text[depth + 1]
            inside = self.ids[depth, :children]
            q[inside] = 0.0
            outside = q.sum()
            q /= max(outside, 1e-30)
            self.known[depth, children] = p[inside].sum(), np.minimum(p, q).sum(), outside, min(1, q[token] / p[token])
        return self.known[depth, children]

    def walk(self, stay, leaves):
        """Expected tokens of a round, its tokens in the deterministic part, P(one more), what the leaves met."""
        node, expected, counts, met = 0, 1.0, self.counts[stay], []
        for depth in range(len(self.p)):
            inside, mass, outside, is_leaf = self.leaf(depth, counts[node])
            expected += inside
            if node in leaves:
                expected += mass
                met.append((mass, outside, 1 - inside))
            child = self.child.get((node, self.text[depth + 1]), stay + 1)
            if child > stay:
                return expected, depth + 1, is_leaf if node in leaves else 0.0, met
            node = child
        return expected, len(self.p) + 1, 0.0, met


def measure_text(text, p, q, nodes, c, roots):
    """One text's sums: positions, their tau; rounds, their tau; trees with leaves, leaves; passed leaves, their sums."""
    sums, starts = np.zeros(10), np.zeros(len(text) + 1)
    starts[0] = 1.0
    for i, root in enumerate(roots):
        stay, leaves = root.place(nodes, c)
        expected, tokens, extra, met = root.walk(stay, leaves)
        starts[i + tokens] += starts[i] * (1 - extra)
        if extra:
            starts[i + tokens + 1] += starts[i] * extra
        sums[:6] += 1, expected, starts[i], starts[i] * expected, bool(leaves), len(leaves)
        sums[6:] += len(met), *np.sum(met or [(0, 0, 0)], axis=0)
    return sums


def gain(plain, hybrid, count, total):
    """Both ratios of totals, the gain in percent and its standard error, from (texts, sums) each."""
    both = [(s[:, total], s[:, count], s[:, total].sum() / s[:, count].sum()) for s in (plain, hybrid)]
    rest = [(tokens - tau * counts) / tokens.sum() for tokens, counts, tau in both]
    ratio, texts = both[1][2] / both[0][2], len(plain)
    error = ratio * np.sqrt(((rest[1] - rest[0]) ** 2).sum() * texts / max(texts - 1, 1))
    return both[0][2], both[1][2], 100 * (ratio - 1), 100 * error


def line(temp, nodes, c, plain, hybrid):
    tau, tau_leaf, percent, error = gain(plain, hybrid, 0, 1)
    rounds, rounds_leaf, rounds_percent, rounds_error = gain(plain, hybrid, 2, 3)
    positions, _, _, _, placed, leaves, passed, mass, outside, leaving = hybrid.sum(axis=0)
    return {
        "temp": temp, "nodes": nodes, "c": c,
        "tau": f"{tau:.3f}", "+ leaves": f"{tau_leaf:.3f}", "gain %": f"{percent:+.2f} +-{error:.2f}",
        "rounds": f"{rounds:.3f}", "with leaves": f"{rounds_leaf:.3f}", "gain in %": f"{rounds_percent:+.2f} +-{rounds_error:.2f}",
        "placed": f"{placed / positions:.0%}", "leaves": f"{leaves / positions:.2f}",
        "mass": f"{mass / max(passed, 1):.3f}", "caught": f"{mass / max(leaving, 1e-9):.0%}", "true c": f"{mass / max(outside, 1e-9):.2f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, nargs="?", default=Path(str(DEMO / "heldout_prompts.jsonl")))
    parser.add_argument("--model", help="default: the embedded pair")
    parser.add_argument("--draft-model")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pair = load(args.model, args.draft_model)
    chat_format = ChatFormat(pair.tokenizer)
    rows = [json.loads(row) for row in args.prompts.read_text(encoding="utf-8").splitlines()][: args.count]
    cases = [(n, c) for n in BUDGETS for c in (0.0, *OVERLAPS)]
    table = []
    for temp in TEMPERATURES:
        sums = {case: [] for case in cases}
        for i, row in enumerate(tqdm(rows, unit="prompt", desc=f"temperature {temp}")):
            prompt = chat_format.prompt_tokens([{"role": "user", "content": row["prompt"]}])
            rng = np.random.default_rng([i, round(100 * temp)])
            text, p, q = sample_answer(pair, prompt, temp, args.max_tokens, rng)
            length = pair.drafter.config.block_size - 1
            roots = [Root(text[j : j + length + 1], p[j + 1 : j + length + 1], q[j]) for j in range(len(text) - length)]
            for case in cases if roots else ():
                sums[case].append(measure_text(text, p, q, *case, roots))
        stacked = {case: np.array(parts) for case, parts in sums.items()}
        table += [line(temp, n, c, stacked[n, 0.0], stacked[n, c]) for n, c in cases if c]
    print(table_text(table))
    if args.json:
        args.json.write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

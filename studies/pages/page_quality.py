"""How much of a target's attention a budget of pages reads: formation x ranking, on real keys, queries and text.

Usage: python studies/pages/page_quality.py MODEL_FOLDER [--lengths 2048,4096] [--texts 1] [--json FILE]
       python studies/pages/page_quality.py --demo
       python studies/pages/page_quality.py --read FILE      (the tables of an earlier --json)

Keys and queries are those of every attention layer after RoPE.  The first 32 and the last 64 tokens are read anyway
(sinks and recent window); the pages hold what is between.  Texts are prose, code, and a question about a fact in the
middle of prose, with its answer.  The queries are the last 32 rows of the text.  A budget of b
tokens reads b / 16 pages per KV head, half-empty ones too, in which the query heads of the KV head take turns.

middle: the captured share of the attention that falls between sinks and window.  all: sinks, window and captured, of
all attention.  The first two layers are left out of the means, as IceCache reads them in full.  random: pages of consecutive tokens, drawn.  oracle: the best tokens, of each query head for itself.
"""

import argparse
import json
import random
import time
from itertools import product
from pathlib import Path

import numpy as np

from mlx_ddtree import load
from mlx_ddtree.benchmarking.needles import haystack, needle_case
from mlx_ddtree.icecache import make_pages
from mlx_ddtree.icecache.index.cuts import by_bisection, by_neighbours
from mlx_ddtree.icecache.index.dci_tree import DciTree

import mlx.core as mx  # isort: skip  (mlx_ddtree finds the fast BLAS first)
import mlx.nn as nn  # isort: skip

SINKS, WINDOW, ROWS, SIZE = 32, 64, 32, 16
BUDGETS = (64, 256)
FULL_LAYERS = 2
KINDS = ("prose", "code", "question")
METHODS = [(f, r) for f in ("dci", "greedy", "sequential") for r in ("tree", "page_mean", "page_max")]
METHODS = [m for m in METHODS if m[0] == "dci" or m[1] != "tree"]


class Recorder(nn.Module):
    """In front of one attention's RoPE: remembers what came out, queries first, then keys."""

    def __init__(self, rope):
        super().__init__()
        self.rope, self.seen = rope, []

    def __call__(self, x, offset=0):
        out = self.rope(x, offset=offset)
        self.seen.append(out)
        return out


def record(target, ids, chunk=256):
    """Keys (layers, KV heads, n, D) and the last rows' queries (layers, KV heads, heads of one, ROWS, D), float32."""
    attentions = [layer.self_attn for layer in target.layers]
    ropes = [attention.rope for attention in attentions]
    for attention, rope in zip(attentions, ropes, strict=True):
        attention.rope = Recorder(rope)
    cache = target.make_cache()
    keys = [[] for _ in ropes]
    queries = [[] for _ in ropes]
    for start in range(0, len(ids), chunk):
        mx.eval(target.forward(mx.array([ids[start : start + chunk]]), cache)[0])
        for layer, attention in enumerate(attentions):
            q, k = (np.array(x[0].astype(mx.float32)) for x in attention.rope.seen)
            attention.rope.seen.clear()
            keys[layer].append(k)
            queries[layer] = [*queries[layer], q][-2:]
    for attention, rope in zip(attentions, ropes, strict=True):
        attention.rope = rope
    keys = np.stack([np.concatenate(k, axis=1) for k in keys])
    queries = np.stack([np.concatenate(q, axis=1)[:, -ROWS:] for q in queries])
    layers, heads, _, dim = keys.shape
    return keys, queries.reshape(layers, heads, -1, ROWS, dim)


class Head:
    """One KV head of one layer: its middle keys, and how the queries (G, R, D) spread over them."""

    def __init__(self, keys, queries):
        self.keys, self.queries = keys[SINKS:-WINDOW], queries
        scores = queries @ keys.T / np.sqrt(keys.shape[1])
        n = len(keys)
        hidden = np.arange(n) > np.arange(n - ROWS, n)[:, None]
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        self.weights = weights[..., SINKS:-WINDOW]  # (G, R, middle)
        self.middle = self.weights.sum(axis=-1)

    def shares(self, captured):
        """captured (G, R) -> [share of the middle, sinks + window + captured]."""
        return [float((captured / self.middle).mean()), float((1 - self.middle + captured).mean())]

    def oracle(self, budget):
        return self.shares(-np.sort(-self.weights, axis=-1)[..., :budget].sum(axis=-1))

    def captured(self, pages, chosen):
        """pages (P, 16); chosen (R, k) -> shares."""
        held = np.where(pages >= 0, self.weights[..., np.maximum(pages, 0)], 0).sum(axis=-1)  # (G, R, P)
        taken = np.where(chosen >= 0, np.take_along_axis(held, np.maximum(chosen, 0)[None], axis=-1), 0)
        return self.shares(taken.sum(axis=-1))

    def by_search(self, index):
        """Shares for every budget, in which the query heads take turns."""
        groups, rows, dim = self.queries.shape
        count = max(BUDGETS) // SIZE
        found = index.search(self.queries.reshape(-1, dim), count).reshape(groups, rows, count)
        turns = found.transpose(1, 2, 0).reshape(rows, -1)
        chosen = [first_unique(row[row >= 0], count) for row in turns]
        return [self.captured(index.pages, np.array([c[: b // SIZE] for c in chosen])) for b in BUDGETS]

    def drawn(self, rng):
        index = built(self.keys, "sequential", "page_max")
        chosen = np.array([rng.permutation(len(index.pages))[: max(BUDGETS) // SIZE] for _ in range(ROWS)])
        return [self.captured(index.pages, chosen[:, : b // SIZE]) for b in BUDGETS]


def first_unique(row, count):
    _, first = np.unique(row, return_index=True)
    row = row[np.sort(first)][:count]
    return np.pad(row, (0, count - len(row)), constant_values=-1)


def built(keys, formation, ranking, later=0):
    """All at once, or the last `later` tokens inserted 16 at a time."""
    index = make_pages(formation, ranking, keys.shape[1], SIZE)
    index.build(keys[: len(keys) - later])
    for start in range(len(keys) - later, len(keys), SIZE):
        index.insert(keys[start : start + SIZE])
    return index


def measure(heads):
    """One text's heads -> method -> one row of [middle, all] per budget."""
    rng, found = np.random.default_rng(0), {}
    for head in heads:
        found.setdefault("random", []).append(head.drawn(rng))
        found.setdefault("oracle", []).append([head.oracle(b) for b in BUDGETS])
        for formation, ranking in METHODS:
            index = built(head.keys, formation, ranking)
            found.setdefault(f"{formation} {ranking}", []).append(head.by_search(index))
            if ranking == "page_max":
                late = built(head.keys, formation, ranking, later=len(head.keys) // 4)
                found.setdefault(f"{formation} page_max, a quarter later", []).append(head.by_search(late))
                found.setdefault(f"{formation} fill", []).append(
                    [len(head.keys) / (index.pages >= 0).any(1).sum() / SIZE]
                )
                found.setdefault(f"{formation} fill later", []).append(
                    [len(head.keys) / (late.pages >= 0).any(1).sum() / SIZE]
                )
    return found


def by_projection(points, size):
    """As published: in the order of one random projection."""
    direction = np.random.default_rng(0).normal(size=points.shape[1])
    order = np.argsort(points @ direction, kind="stable")
    return [order[i : i + size] for i in range(0, len(order), size)]


def compare_cuts(heads):
    """Rows of the DCI tree's shares by r1 and cut."""
    rows = []
    for r1, cut in product((0.01, 0.03, 0.05), (by_projection, by_neighbours, by_bisection)):
        shares, fill = [], []
        for head in heads:
            tree = DciTree(head.keys.shape[1], SIZE, r1=r1, cut=cut)
            tree.build(head.keys)
            shares.append(head.by_search(tree))
            fill.append(len(head.keys) / tree.pages.size)
        mean = np.mean(shares, axis=0)[:, 0]
        rows.append([r1, cut.__name__, *(f"{x:.3f}" for x in mean), f"{np.mean(fill):.2f}"])
    return rows


def times(layer_heads, repeats=5):
    """Milliseconds of the processor for one layer, all its KV heads: build, insert of 16 tokens, search for one row and
    for 23; the best of some runs, because other programs only ever make one slower."""
    table = {}
    for formation, ranking in METHODS:
        columns = {"build": [], "insert": [], "search 1": [], "search 23": []}
        for _ in range(repeats):
            indices = [make_pages(formation, ranking, head.keys.shape[1], SIZE) for head in layer_heads]
            pairs = list(zip(indices, layer_heads, strict=True))
            columns["build"].append(timed(lambda pairs=pairs: [i.build(h.keys[:-SIZE]) for i, h in pairs]))
            columns["insert"].append(timed(lambda pairs=pairs: [i.insert(h.keys[-SIZE:]) for i, h in pairs]))
            for rows in (1, 23):
                asked = [(i, h.queries[:, :rows].reshape(-1, h.keys.shape[1])) for i, h in pairs]
                columns[f"search {rows}"].append(timed(lambda asked=asked: [i.search(q, 16) for i, q in asked]))
        table[f"{formation} {ranking}"] = {name: min(x) for name, x in columns.items()}
    return table


def timed(work):
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def texts(tokenizer, length, count):
    """Prose, code, and a question about a fact in the middle of prose with its answer, `length` tokens each."""
    for seed in range(count):
        for kind in KINDS[:2]:
            ids = tokenizer.encode("".join(haystack(kind, 6 * length, random.Random(seed))))
            yield kind, ids[:length]
        case = needle_case("prose", 6 * length, 0.3, seed)
        ending = f"\n{case.fact.question}<|im_end|>\n<|im_start|>assistant\n{case.fact.answer}"
        before, after = (
            tokenizer.encode(text, add_special_tokens=False)
            for text in ("<|im_start|>user\n" + case.text[: case.needle[1]], case.text[case.needle[1] :])
        )
        end = tokenizer.encode(ending, add_special_tokens=False)
        before = before[-(length // 2) :]
        yield "question", [*before, *after[: length - len(before) - len(end)], *end]


def print_table(rows, header):
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * w for w in widths], *rows]:
        print("| " + " | ".join(str(x).ljust(w) for x, w in zip(row, widths, strict=True)) + " |")


def report(length, found, milliseconds):
    """found: method -> (texts, layers, heads, budgets, kinds)."""
    print(f"\n## {length} tokens\n")
    shares = {name: x for name, x in found.items() if "fill" not in name}
    rows = []
    for name, x in shares.items():
        mean = x[:, FULL_LAYERS:].mean(axis=(0, 1, 2))
        fill = found.get(f"{name.split()[0]} fill{' later' if 'later' in name else ''}")
        cells = [f"{mean[b, kind]:.3f}" for kind in (0, 1) for b in range(len(BUDGETS))]
        rows.append([name, *cells, "" if fill is None else f"{fill.mean():.2f}"])
    print_table(rows, ["pages", *(f"{kind} {b}" for kind in ("middle", "all") for b in BUDGETS), "fill"])
    rows = []
    for name, x in shares.items():
        kinds = [x[i :: len(KINDS), FULL_LAYERS:].mean(axis=(0, 1, 2))[:, 0] for i in range(len(KINDS))]
        rows.append([name, *(f"{k[0]:.3f} / {k[1]:.3f}" for k in kinds)])
    print("\nmiddle at 64 / 256 by text\n")
    print_table(rows, ["pages", *KINDS])
    names = ["random", "dci tree", "greedy page_max", "sequential page_max", "oracle"]
    of_layers = [shares[name].mean(axis=(0, 2))[..., 0] for name in names]
    rows = [[i, *(f"{x[0]:.3f} / {x[1]:.3f}" for x in layer)] for i, layer in enumerate(zip(*of_layers, strict=True))]
    print("\nmiddle at 64 / 256 by layer\n")
    print_table(rows, ["layer", *names])
    print("\nmilliseconds of the processor for a layer, all its KV heads\n")
    rows = [[n, *(f"{x:.1f}" for x in row.values())] for n, row in milliseconds.items()]
    print_table(rows, ["pages", *next(iter(milliseconds.values()))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("model", nargs="?", help="a folder")
    which.add_argument("--demo", action="store_true", help="the embedded target")
    which.add_argument("--read", type=Path, help="print what an earlier run wrote")
    parser.add_argument("--lengths", default="2048,4096", help="tokens of a text")
    parser.add_argument("--texts", type=int, default=1, help="of each kind")
    parser.add_argument("--json", type=Path, help="write every head's numbers there")
    parser.add_argument("--cuts", action="store_true", help="only compare shares r1 and cuts of the DCI tree")
    args = parser.parse_args()
    if args.read:
        for length, found in json.loads(args.read.read_text()).items():
            report(length, {name: np.array(x) for name, x in found["shares"].items()}, found["milliseconds"])
        return
    pair = load(None if args.demo else args.model, draft=False)
    pair.target.model.set_dtype(mx.float32)  # a CPU computes 16 bits slowly
    results = {}
    for length in map(int, args.lengths.split(",")):
        found, heads = {}, []
        for _, ids in texts(pair.tokenizer, length, args.texts):
            keys, queries = record(pair.target, ids)
            layers = [[Head(k, q) for k, q in zip(*layer, strict=True)] for layer in zip(keys, queries, strict=True)]
            if args.cuts:
                heads += [head for layer in layers[FULL_LAYERS:] for head in layer]
                continue
            for name, rows in measure([head for layer in layers for head in layer]).items():
                # One axis per text, layer and head, so that layers can be told apart again.
                shape = (1, len(layers), len(layers[0]), *np.shape(rows)[1:])
                found.setdefault(name, []).append(np.reshape(rows, shape))
        if args.cuts:
            print_table(compare_cuts(heads), ["r1", "cut", *(f"middle {b}" for b in BUDGETS), "fill"])
            continue
        found = {name: np.concatenate(x) for name, x in found.items()}
        milliseconds = times(layers[len(layers) // 2])
        report(length, found, milliseconds)
        results[length] = {"shares": {n: x.tolist() for n, x in found.items()}, "milliseconds": milliseconds}
    if args.json:
        args.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()

"""Does what a compressed prompt keeps hold the needle?  Kept needles by scorer, text, length, keep ratio.

Usage: python studies/prompts/needle_report.py MODEL [--json FILE] [--lengths 1024,2048,4096,8192] [--seeds 3,2,1,1]
           [--depths 0.1,0.3,0.5,0.7,0.9] [--by-layer] [--read FILE ...]

MODEL is a target's folder or repository, or "demo" for the embedded one, which scores its own prompts.  Cases are chat
prompts with one fact in real prose, real code or repeated sentences, at depths of 10 to 90 %, and a question about it at
the end.  A needle counts as kept if every token of its statement is.  Beside the scorer: the lexical scorer, random
scores (both through the same selection), and the prompt's first and last tokens alone, half of what may be kept each.
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

import mlx_ddtree
from mlx_ddtree.benchmarking.needles import KINDS, needle_case
from mlx_ddtree.pflash.block_sparse import BlockSparseAttention
from mlx_ddtree.pflash.bridge import token_spans
from mlx_ddtree.pflash.lexical import LexicalScorer
from mlx_ddtree.pflash.scoring import TailAttentionScorer, asking_end, closing_tokens
from mlx_ddtree.pflash.selection import select
from mlx_ddtree.terminal import table_text

KEEP = (0.1, 0.2, 0.3)
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass
class Case:
    kind: str
    tokens: int
    depth: float
    seed: int
    ids: list[int]
    needle: tuple[int, int]


def make_case(tokenizer, kind, tokens, depth, seed) -> Case:
    """A chat prompt of about `tokens` tokens and where the needle's tokens are."""
    fast = tokenizer._tokenizer.backend_tokenizer
    sample = needle_case(kind, 20_000, depth, seed).text
    rate = len(sample) / len(fast.encode(sample).ids)
    case = needle_case(kind, int((tokens - 50) * rate), depth, seed)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": case.prompt}], add_generation_prompt=True)
    text, spans = token_spans(fast, ids)
    start = text.index(case.text) + case.needle[0]
    end = start + case.needle[1] - case.needle[0]
    hit = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
    return Case(kind, tokens, depth, seed, ids, (int(hit[0]), int(hit[-1]) + 1))


def kept(case: Case, positions) -> bool:
    return len(np.intersect1d(positions, np.arange(*case.needle))) == case.needle[1] - case.needle[0]


def ends(length: int, ratio: float):
    """The first and last tokens, half of what may be kept each."""
    half = int(np.ceil(ratio * length)) // 2
    return np.r_[0:half, length - half : length]


def flop_share(target, scorer: TailAttentionScorer, length: int) -> float:
    """The scorer's share of the target's multiplications in a prefill of `length` tokens (dense attention models)."""
    args = target.args

    def layer(i: int) -> float:
        weights = sum(x.size for x in target.layers[i].parameters()["mlp"].values() for x in x.values())
        weights += sum(target.layers[i].self_attn[f"{n}_proj"].weight.size for n in "qkvo")
        return weights + length * args.num_attention_heads * args.head_dim  # q . k and p . v, half of each masked

    last = target.layers[scorer.layers - 1].self_attn
    ours = sum(layer(i) for i in range(scorer.layers - 1)) + last.q_proj.weight.size + last.k_proj.weight.size
    return ours / sum(layer(i) for i in range(target.num_layers))


def cases_of(tokenizer, lengths, seeds, depths):
    for (tokens, count), depth, kind in product(zip(lengths, seeds, strict=True), depths, KINDS):
        for seed in range(count):
            yield make_case(tokenizer, kind, tokens, depth, 1000 * tokens + seed)


def measure(target, tokenizer, cases, options) -> tuple[list[dict], dict]:
    closing = closing_tokens(tokenizer)
    sparse = BlockSparseAttention(alpha=options.alpha)
    made = {"sparse": sparse, "sparse_from": options.sparse_from, "closing": closing, "step": 1024}
    scorer = TailAttentionScorer(target, layers=options.layers, scoring=options.scoring, **made)
    lexical, rows, seconds, fractions = LexicalScorer(closing=closing), [], 0.0, []
    for case in cases:
        start = time.perf_counter()
        scores = {"tail attention": scorer(case.ids)}
        seconds += time.perf_counter() - start
        if sparse.causal:
            fractions.append(sparse.kept_fraction)
        scores |= {"lexical": lexical(case.ids), "random": np.random.default_rng(case.seed).random(len(case.ids))}
        common = {
            "kind": case.kind,
            "tokens": case.tokens,
            "depth": case.depth,
            "seed": case.seed,
            "length": len(case.ids),
        }
        for keep in KEEP:
            rows.append(common | {"scorer": "head + tail", "keep": keep, "anchors": False})
            rows[-1]["kept"] = kept(case, ends(len(case.ids), keep))
            for (name, values), anchors in product(scores.items(), (False, True)):
                chosen = select(values, case.ids, keep, anchors=anchors)
                rows.append(common | {"scorer": name, "keep": keep, "anchors": anchors, "ratio": chosen.ratio})
                rows[-1]["kept"] = kept(case, chosen.positions)
        print(f"{case.kind} {case.tokens} {case.depth}: {rows[-1]['ratio']:.3f}, {seconds:.0f} s", flush=True)
        if options.json:  # after every case: the long ones take minutes
            options.json.write_text(json.dumps({"model": options.model, "seconds": seconds, "rows": rows}))
    about = {"layers": scorer.layers, "scoring": len(scorer.scoring), "seconds": seconds}
    about["flop_share"] = {n: round(flop_share(target, scorer, n), 3) for n in options.lengths}
    about["kept_blocks"] = round(float(np.mean(fractions)), 3) if fractions else None
    return rows, about


def by_layer(target, tokenizer, cases) -> list[dict]:
    """Needles kept (keep 0.2, no anchors) by every layer alone, before and after RoPE."""
    closing, found = closing_tokens(tokenizer), defaultdict(list)
    for before_rope in (True, False):
        scorer = TailAttentionScorer(
            target, layers=target.num_layers, scoring=target.num_layers, before_rope=before_rope
        )
        for case in cases:
            for end, name in ((asking_end(case.ids, closing), "text's end"), (len(case.ids), "prompt's end")):
                for layer, rows in scorer.rows_of_layers(case.ids[:end]):
                    scores = np.pad(np.array(rows.mean(axis=0)), (0, len(case.ids) - end))
                    place = f"{'before' if before_rope else 'after'} RoPE, {name}"
                    found[layer + 1, place].append(kept(case, select(scores, case.ids, 0.2, anchors=False).positions))
    layers, places = sorted({layer for layer, _ in found}), list(dict.fromkeys(place for _, place in found))
    return [{"layer": n} | {place: percent(found[n, place]) for place in places} for n in layers]


def percent(values) -> str:
    return f"{100 * np.mean(values):.0f} %" if values else "-"


def table(rows: list[dict], key: str) -> list[dict]:
    """Shares by scorer and anchors against keep ratio and `key`."""
    names = list(dict.fromkeys((row["scorer"], row["anchors"]) for row in rows))
    heads = list(product(KEEP[1:], sorted({row[key] for row in rows})))
    lines = []
    for name, anchors in names:
        mine = [row for row in rows if (row["scorer"], row["anchors"]) == (name, anchors)]
        line = {"scorer": name + (" + anchors" if anchors else "")}
        for keep, value in heads:
            line[f"{keep} {value}"] = percent([row["kept"] for row in mine if (row["keep"], row[key]) == (keep, value)])
        lines.append(line)
    return lines


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--json", type=Path, help="write every case's outcome here")
    parser.add_argument("--lengths", type=numbers, default=[1024, 2048, 4096, 8192])
    parser.add_argument("--seeds", type=numbers, default=[3, 2, 1, 1], help="cases of each kind and depth, by length")
    parser.add_argument("--depths", type=lambda text: [float(part) for part in text.split(",")], default=DEPTHS)
    parser.add_argument("--layers", type=int, help="first layers that run (default: the scorer's)")
    parser.add_argument("--scoring", type=int, help="how many of them score (default: the scorer's)")
    parser.add_argument("--alpha", type=float, default=BlockSparseAttention().alpha)
    parser.add_argument("--sparse-from", type=int, default=32_768)
    parser.add_argument("--read", type=Path, nargs="+", help="show what --json wrote, of several runs together")
    parser.add_argument("--by-layer", action="store_true", help="each layer alone instead")
    options = parser.parse_args()
    if options.read:
        rows = [row for file in options.read for row in json.loads(file.read_text())["rows"]]
        print(table_text(table(rows, "kind")), table_text(table(rows, "tokens")), sep="\n\n")
        return
    pair = mlx_ddtree.load(None if options.model == "demo" else options.model, draft=False)
    cases = list(cases_of(pair.tokenizer, options.lengths, options.seeds, options.depths))
    if options.by_layer:
        print(table_text(by_layer(pair.target, pair.tokenizer, cases)))
        return
    rows, about = measure(pair.target, pair.tokenizer, cases, options)
    print(f"{len(cases)} cases", about, table_text(table(rows, "kind")), table_text(table(rows, "tokens")), sep="\n\n")


if __name__ == "__main__":
    main()

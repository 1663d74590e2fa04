"""Time to the first token against stock mlx_lm, and how rounds grow with the context.

    python studies/prompts/first_token.py first [--tokens 50 500 1000 2000 4000 8000] [--repeats 5] [--json]
    python studies/prompts/first_token.py rounds [--contexts 256 512 1024 2048 4096] [--nodes 8] [--repeats 9] [--json]

first: the same token ids through mlx_lm.stream_generate and through ours, in turns, until the first response is there.
   Ratios are those of the least times; `cpu` those of the process's processor seconds, which a busy machine changes less.
   `first draft` is how much longer our second response takes than stock's second token: what waited is done there.
rounds: one verification of a tree and one of a chain, a draft, and the target's own forward of so many rows over its
   causal cache, in turns, behind the same text; least milliseconds, and how much each has grown since the shortest context.
   `host` is what a round of a fixed tree takes beyond its draft and its verification.

MKL_NUM_THREADS=1 keeps the two cores of a small machine apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from time import perf_counter, process_time
from typing import Any

import numpy as np

from mlx_ddtree import load, stream_generate
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.draft import draft
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import commit
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import verify
from mlx_ddtree.pair import Pair
from mlx_ddtree.terminal import table_text
from mlx_ddtree.tree import DraftTree

import mlx.core as mx  # isort: skip
import mlx_lm  # isort: skip  # after mlx_ddtree, which loads MKL

Row = dict[str, Any]


def text_of(pair: Pair, tokens: int) -> list[int]:
    """Token ids of a text that does not repeat itself."""
    known = [i for i in range(10, pair.target.vocab_size) if i not in pair.tokenizer.eos_token_ids]
    ids: list[int] = np.random.default_rng(tokens).choice(known, tokens).tolist()
    return ids


def stock(pair: Pair, ids: list[int]) -> Iterator[Any]:
    return mlx_lm.stream_generate(pair.target.model, pair.tokenizer, ids, max_tokens=3)


def ours(pair: Pair, ids: list[int]) -> Iterator[Any]:
    return stream_generate(pair, ids, max_tokens=24, tree_budget=8, parity="off")


def plainly(pair: Pair, ids: list[int]) -> Iterator[Any]:
    return stream_generate(pair, ids, max_tokens=3, method="ar")


def first_response(start: Callable[[Pair, list[int]], Iterator[Any]], pair: Pair, ids: list[int]) -> list[float]:
    """Seconds and processor seconds to the first response, and seconds from it to the second."""
    started, worked = perf_counter(), process_time()
    stream = start(pair, ids)
    next(stream)
    there = perf_counter()
    cpu = process_time() - worked
    next(stream, None)
    return [there - started, cpu, perf_counter() - there]


def first_tokens(pair: Pair, lengths: list[int], repeats: int) -> list[Row]:
    """A row for every length of the prompt."""
    ways = {"stock": stock, "tree": ours, "ar": plainly}
    rows = []
    for tokens in lengths:
        ids = text_of(pair, tokens)
        runs: dict[str, list[list[float]]] = {name: [] for name in ways}
        for turn in range(repeats + 1):
            for name, start in ways.items():
                spent = first_response(start, pair, ids)
                if turn:  # the first turn warms up
                    runs[name].append(spent)
        least = {name: np.min(spent, axis=0) for name, spent in runs.items()}
        row: Row = {"tokens": tokens, "stock ms": round(1e3 * least["stock"][0], 1)}
        for name in ("tree", "ar"):
            row[name] = f"{least[name][0] / least['stock'][0]:.3f}x"
            row[f"{name} cpu"] = f"{least[name][1] / least['stock'][1]:.3f}x"
        row["first draft ms"] = round(1e3 * (least["tree"][2] - least["stock"][2]), 1)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def prepared(pair: Pair, context: int) -> DecodeState:
    """A sequence of so many tokens, and its root."""
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, text_of(pair, context + 1), 2048)
    return state


def round_parts(pair: Pair, state: DecodeState, nodes: int) -> dict[str, Callable[[], object]]:
    """What a round is made of; each leaves the state as it was."""
    plan = RoundPlan("ddtree", nodes + 1, nodes, Sampler())
    parents = np.maximum(np.arange(-1, nodes) - 1, -1)  # a spine with a sibling at every second node
    depths = np.zeros(nodes + 1, np.int32)
    for node in range(1, nodes + 1):
        parents[node] = max(parents[node], 0)
        depths[node] = depths[parents[node]] + 1
    ids = np.arange(20, 21 + nodes, dtype=np.int32)
    bushy = DraftTree(ids, parents.astype(np.int32), depths, np.zeros(nodes + 1, np.float32))
    rows = mx.array(ids)[None]

    def undone(work: Callable[[], object]) -> Callable[[], object]:
        def call() -> None:
            drafted, features, length = state.drafted_length, state.features, state.length
            root, near_tie, tokens = state.root, state.near_tie, len(state.token_ids)
            marked = pair.target.mark(state.caches.target)
            work()
            pair.target.rewind(state.caches.target, marked)
            for layer in state.caches.drafter:
                layer.offset = drafted
            state.features, state.length, state.root, state.near_tie = features, length, root, near_tie
            del state.token_ids[tokens:]

        return call

    def whole_round() -> None:
        candidates = draft(state, nodes + 1, nodes)
        verification = verify(state, bushy, plan)
        commit(state, [0, 1], verification, verification.chosen[:2])
        mx.eval([layer.state for layer in state.caches.target], state.features, candidates.token_ids.size)

    def own_forward() -> None:
        hidden, _ = pair.target.forward(rows, state.caches.target)
        mx.eval(pair.target.unembed(hidden[0]))

    chain = DraftTree.chain(ids)
    return {
        "target's own": undone(own_forward),
        "chain": undone(lambda: verify(state, chain, plan)),
        "tree": undone(lambda: verify(state, bushy, plan)),
        "draft": undone(lambda: draft(state, nodes + 1, nodes)),
        "round": undone(whole_round),
    }


def rounds(pair: Pair, contexts: list[int], nodes: int, repeats: int) -> list[Row]:
    """A row for every context length, least milliseconds of each part, and its growth since the first row."""
    least: list[dict[str, float]] = []
    parts = [round_parts(pair, prepared(pair, context), nodes) for context in contexts]
    spent: list[dict[str, list[float]]] = [{name: [] for name in part} for part in parts]
    for turn in range(repeats + 1):
        for part, taken in zip(parts, spent, strict=True):
            for name, work in part.items():
                started = perf_counter()
                work()
                if turn:
                    taken[name].append(1e3 * (perf_counter() - started))
    least = [{name: min(ms) for name, ms in taken.items()} for taken in spent]
    rows = []
    for context, ms in zip(contexts, least, strict=True):
        row: Row = {"context": context}
        for name, value in ms.items():
            row[name] = f"{value:.2f} (+{value - least[0][name]:.2f})"
        rest = ms["round"] - ms["draft"] - ms["tree"]
        row["rest"] = f"{rest:.2f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("first", "rounds"))
    parser.add_argument("--model", help="target (default: the embedded one)")
    parser.add_argument("--draft-model", help="drafter (default: the embedded one)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[50, 500, 1000, 2000, 4000, 8000])
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    pair = load(args.model, args.draft_model)
    if args.what == "first":
        rows = first_tokens(pair, args.tokens, args.repeats)
    else:
        rows = rounds(pair, args.contexts, args.nodes, args.repeats)
    print(json.dumps(rows) if args.json else table_text(rows))


if __name__ == "__main__":
    main()

"""What a draft costs by context and window, and what the window costs in acceptance.

Usage: python studies/prompts/draft_window.py [time] [acceptance] [--model FOLDER]

time        the embedded drafter behind contexts of random features: seconds of a draft (block 16, 3 new tokens), of a
            prefill's chunk of 512 tokens, and memory of its caches.  Medians of interleaved runs.
acceptance  tokens a round on held-out questions behind real code of that length, temperature 0, trees of 16 nodes.
"""

import argparse
import json
import random
from statistics import median
from time import perf_counter, process_time

from mlx_ddtree import load, stream_generate
from mlx_ddtree.benchmarking.needles import haystack
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.terminal import table_text

import mlx.core as mx  # isort: skip

WINDOWS = (None, 1024, 512, 256)


def pair_of(window, model):
    return load(model, str(DEMO / "drafter") if model else None, draft_window=window)


def time_drafts(args):
    drafters = {window: pair_of(window, None).drafter for window in WINDOWS}
    width = drafters[None].num_taps * drafters[None].config.hidden_size
    caches = {window: drafter.make_cache() for window, drafter in drafters.items()}
    block = mx.random.normal((1, 16, drafters[None].config.hidden_size))
    new, lines, done = mx.random.normal((1, 3, width)), [], 0
    for context in args.contexts:
        chunks = {window: [] for window in WINDOWS}
        for _ in range(done, context, 512):
            features = mx.random.normal((1, 512, width))
            mx.eval(features)
            for window, drafter in drafters.items():
                start = args.clock()
                drafter.extend(features, caches[window])
                mx.eval([cache.state for cache in caches[window]])
                chunks[window].append(args.clock() - start)
        done, drafts = context, {window: [] for window in WINDOWS}
        for repeat in range(-2, 25):
            for window, drafter in drafters.items():
                start = args.clock()
                mx.eval(drafter(block, new, caches[window]))
                if repeat >= 0:
                    drafts[window].append(args.clock() - start)
                for cache in caches[window]:
                    cache.offset = context
        for window in WINDOWS:
            lines.append(
                {
                    "context": context,
                    "window": window or "none",
                    "draft ms": f"{median(drafts[window]) * 1e3:.2f}",
                    "chunk ms": f"{median(chunks[window]) * 1e3:.1f}",
                    "cache MB": f"{sum(cache.nbytes for cache in caches[window]) / 1e6:.1f}",
                }
            )
    print(table_text(lines))


def acceptance(args):
    pairs = {window: pair_of(window, args.model) for window in WINDOWS}
    rows = (DEMO / "heldout_prompts.jsonl").read_text(encoding="utf-8").splitlines()[: args.count]
    questions, lines = [json.loads(row)["prompt"] for row in rows], []
    for length in args.lengths:
        taken = {window: [0, 0] for window in WINDOWS}
        answers = {window: [] for window in WINDOWS}
        for i, question in enumerate(questions):
            tokenizer = pairs[None].tokenizer
            text = "".join(haystack("code", 5 * length, random.Random(i)))
            before = tokenizer.decode(tokenizer.encode(text)[: max(0, length - 128)])
            prompt = [{"role": "user", "content": (before + "\n" if before else "") + question}]
            for window, pair in pairs.items():
                tokens = []
                for response in stream_generate(pair, prompt, 64, tree_budget=16, parity="rows"):
                    tokens += response.tokens
                taken[window][0] += response.generation_tokens - 1
                taken[window][1] += response.rounds
                answers[window].append(tokens)
        assert all(said == answers[None] for said in answers.values())  # the window cannot change a token
        lines.append(
            {"context": length or "question", **{str(w or "none"): f"{t / r:.2f}" for w, (t, r) in taken.items()}}
        )
        print(lines[-1], flush=True)
    print(table_text(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["time", "acceptance", []])
    parser.add_argument("--model", help="a target of the embedded drafter's size")
    parser.add_argument("--count", type=int, default=6, help="questions")
    parser.add_argument("--lengths", type=int, nargs="+", default=[0, 512, 1024, 2048, 4096, 8000], help="acceptance")
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384], help="time")
    parser.add_argument("--cpu", action="store_true", help="CPU time in place of wall time, for busy machines")
    args = parser.parse_args()
    args.clock = process_time if args.cpu else perf_counter
    for part in args.parts or ["time", "acceptance"]:
        {"time": time_drafts, "acceptance": acceptance}[part](args)


if __name__ == "__main__":
    main()

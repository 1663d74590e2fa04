"""How many threads MKL should have and how long they should spin, on an idle machine and on a busy one.

Usage: python studies/machines/blas_threads.py [--threads 1 2] [--blocktimes 0 200] [--busy 0 2] [--count 4] [--tokens 64]

Each row is a process of its own, because MKL reads its settings as it is loaded.  In it every prompt is answered in turns by
stock mlx_lm, by `ar` and by `auto`, with the embedded pair at temperature 0.  Speed is tokens a second of stock; the others are
geometric means of ratios to stock within the row.  Busy: that many other processes keep a core each busy meanwhile.
Linux on x86 only, where MLX computes with MKL.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory
from time import perf_counter

SETTINGS = ("ar", "auto")
SPIN = "while True: pass"


def main() -> None:
    args = make_arguments().parse_args()
    if args.measure:
        print(json.dumps(measured(args.count, args.tokens)))
        return
    print(f"{'busy':>4}  {'threads':>7}  {'blocktime':>9}  {'stock tok/s':>11}  {'ar':>5}  {'auto':>5}")
    for busy in args.busy:
        for threads in args.threads:
            for blocktime in args.blocktimes:
                result = measured_apart(args, busy, threads, blocktime)
                ratios = "  ".join(f"{result[name]:4.2f}x" for name in SETTINGS)
                print(f"{busy:4}  {threads:7}  {blocktime:9}  {result['stock']:11.1f}  {ratios}", flush=True)


def make_arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="MKL_NUM_THREADS")
    parser.add_argument("--blocktimes", type=int, nargs="+", default=[0, 200], help="KMP_BLOCKTIME, milliseconds")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2], help="other processes")
    parser.add_argument("--count", type=int, default=4, help="prompts")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer, at most")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser


def measured_apart(args: argparse.Namespace, busy: int, threads: int, blocktime: int) -> dict[str, float]:
    """One row, in a process of its own beside `busy` others that spin."""
    own = {"MKL_NUM_THREADS": str(threads), "KMP_BLOCKTIME": str(blocktime)}
    command = [sys.executable, __file__, "--measure", "--count", str(args.count), "--tokens", str(args.tokens)]
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    try:
        with TemporaryDirectory() as folder:  # what rounds cost is measured under the row's own conditions
            settings = os.environ | own | {"MLX_DDTREE_CACHE": folder}
            done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, check=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return json.loads(done.stdout.splitlines()[-1])


def measured(count: int, tokens: int) -> dict[str, float]:
    """Tokens a second of stock mlx_lm, and the ratios of SETTINGS to it."""
    import mlx_ddtree  # noqa: PLC0415  (before mlx_lm, which imports mlx.core)
    from mlx_ddtree.benchmarking.prompts import HELD_OUT, load_questions  # noqa: PLC0415

    import mlx_lm  # noqa: PLC0415  # isort: skip

    pair = mlx_ddtree.load()
    prompts = []
    for question in load_questions(HELD_OUT, Path(), count):
        messages = [{"role": "user", "content": question.turns[0]}]
        prompts.append(pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True))
    ways = {
        "stock": lambda ids: list(mlx_lm.stream_generate(pair.target.model, pair.tokenizer, ids, max_tokens=tokens)),
        "ar": lambda ids: list(mlx_ddtree.stream_generate(pair, ids, tokens, method="ar")),
        "auto": lambda ids: list(mlx_ddtree.stream_generate(pair, ids, tokens)),
    }
    for answer in ways.values():
        answer(prompts[0])
    seconds = {name: [] for name in ways}
    produced = 0
    for ids in prompts:
        for name, answer in ways.items():
            start = perf_counter()
            responses = answer(ids)
            seconds[name].append(perf_counter() - start)
        produced += responses[-1].generation_tokens
    ratios = {}
    for name in SETTINGS:
        pairs = zip(seconds["stock"], seconds[name], strict=True)
        ratios[name] = geometric_mean(stock / own for stock, own in pairs)
    return {"stock": produced / sum(seconds["stock"]), **ratios}


if __name__ == "__main__":
    main()

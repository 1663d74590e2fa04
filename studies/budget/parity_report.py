"""How often drafted decoding drifts from plain decoding at temperature 0, by arithmetic and parity mode.

Usage: python studies/budget/parity_report.py [--model MODEL] [--count 200] [--max-tokens 256]
           [--arithmetic bf16 4bit rounded ...]

  fp32      as models run on a CPU
  bf16      weights and activations
  4bit      weights quantised by groups of 64, activations in fp32
  rounded   fp32, but every layer's output keeps 8 bits wherever there are several rows: a stand-in for
            kernels that round differently by the number of rows, as a GPU's do and this CPU's do not

Plain decoding is method 'ar'.  Prompts: the embedded pair's held-out ones, as messages and as raw text; the everyday
ones of another model.
"""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

from mlx_ddtree import load, stream_generate
from mlx_ddtree.benchmarking.prompts import load_questions
from mlx_ddtree.budget.profile import PARITY_MODES
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.terminal import table_text
from mlx_ddtree.tuning.measure import whole_profile_of

import mlx.core as mx  # isort: skip
import mlx.nn as nn  # isort: skip
from tqdm import tqdm  # isort: skip

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.decoding.rounding import round_blocks

ARITHMETIC = ("fp32", "bf16", "4bit", "rounded")


def load_pair(arithmetic, args):
    pair = load(args.model, args.draft_model)
    pair.notes = {}  # what is measured below stays in memory: it is not the pair's usual arithmetic
    if arithmetic == "bf16":
        pair.target.model.set_dtype(mx.bfloat16)
        if pair.drafter is not None:
            pair.drafter.set_dtype(mx.bfloat16)
    elif arithmetic == "4bit":
        nn.quantize(pair.target.model, group_size=64, bits=4)
    elif arithmetic == "rounded":
        round_blocks(pair.target, 8)
    return pair


def prompts(pair, args):
    if args.model is None:
        texts = [json.loads(line)["prompt"] for line in (DEMO / "heldout_prompts.jsonl").read_text().splitlines()]
    else:
        texts = [question.turns[0] for question in load_questions("everyday", Path(), args.count)]
    as_messages = [
        list(pair.tokenizer.apply_chat_template([{"role": "user", "content": t}], add_generation_prompt=True))
        for t in texts
    ]
    return [*as_messages, *(list(pair.tokenizer.encode(t)) for t in texts)][: args.count]


def decode(pair, prompt, max_tokens, **options):
    responses = list(stream_generate(pair, prompt, max_tokens, **options))
    return [t for r in responses for t in r.tokens], responses[-1]


def measure(arithmetic, args):
    """One line per parity mode."""
    pair, lines = load_pair(arithmetic, args), []
    ids = prompts(pair, args)
    start = perf_counter()
    plain = [decode(pair, p, args.max_tokens, method="ar")[0] for p in tqdm(ids, desc=f"{arithmetic} ar")]
    plain_seconds, bounds, off = perf_counter() - start, whole_profile_of(pair).parity, 1.0
    for mode in reversed(PARITY_MODES):
        differ = ties = rounds = 0
        start = perf_counter()
        for prompt, want in zip(tqdm(ids, desc=f"{arithmetic} {mode}"), plain, strict=True):
            tokens, last = decode(pair, prompt, args.max_tokens, parity=mode, tree_budget=args.tree_budget)
            differ += tokens != want
            ties, rounds = ties + last.statistics.kinds["tie"], rounds + last.rounds
        seconds = perf_counter() - start
        off = seconds if mode == "off" else off
        lines.append(
            {
                "arithmetic": arithmetic,
                "bounds": f"{bounds.rows:.1e} / {bounds.cache:.1e}",
                "parity": mode,
                "answers that differ": f"{differ}/{len(ids)}",
                "rounds by near ties": f"{ties / rounds:.2%}",
                "time against 'off'": f"{seconds / off:.2f}",
                "against plain": f"{plain_seconds / seconds:.2f}x",
            }
        )
    return lines, sum(map(len, plain))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="target: folder or repository (default: the embedded pair)")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--arithmetic", nargs="+", choices=ARITHMETIC, default=["bf16", "4bit", "rounded"])
    parser.add_argument("--tree-budget", type=int, default=8)
    parser.add_argument("--draft-model")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lines = []
    for arithmetic in args.arithmetic:
        part, tokens = measure(arithmetic, args)
        lines += part
        print(f"{arithmetic}: {tokens} tokens\n{table_text(part)}\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(lines, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

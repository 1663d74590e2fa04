"""Measure a pair: acceptance length and speed of every method and budget against stock mlx_lm.

Usage: python scripts/measure_pair.py [PROMPTS.jsonl] [--count 60] [--json OUT.json]

  python scripts/measure_pair.py --count 50                the embedded pair's held-out prompts
  python scripts/measure_pair.py scripts/kinds.jsonl       code, dialogue, repetitive and random text

A row of PROMPTS.jsonl has {"prompt": ...} (a user's message) or {"text": ...} (raw), and may have "kind" and "temp".
Every prompt is answered by stock mlx_lm.stream_generate and by each setting, one after the other, so that
all sides meet the same machine; the settings' order changes from prompt to prompt.  Speedups are ratios
within this run.  Answers at temperature 0 are compared with mlx_lm's, token by token; above it, with 'ar' of
the same seed.
"""

import argparse
import json
import platform
import statistics
from pathlib import Path

import mlx_ddtree
from mlx_ddtree import load, make_sampler, stream_generate
from mlx_ddtree.cli import columns
from mlx_ddtree.hub.load import DEMO
from mlx_ddtree.tree.lookup import LookupIndex

import mlx.core as mx  # isort: skip
import mlx_lm  # isort: skip
from mlx_lm.generate import stream_generate as stock_stream_generate  # isort: skip
from mlx_lm.sample_utils import make_sampler as stock_sampler  # isort: skip
from tqdm import tqdm  # isort: skip

BLOCKS = (4, 5, 6, 8, 12, 16)
BUDGETS = (4, 6, 8, 12, 16, 32, 64)
SEED = 7


def settings(block_size):
    """(name, options of stream_generate)"""
    return [
        ("ar", {"method": "ar"}),
        *((f"dflash {b}", {"method": "dflash", "block_size": b}) for b in BLOCKS if b <= block_size),
        ("dflash auto", {"method": "dflash"}),
        *((f"ddtree {n}", {"tree_budget": n}) for n in BUDGETS),
        ("ddtree auto", {}),
    ]


def prompt_ids(pair, row):
    if "text" in row:
        return list(pair.tokenizer.encode(row["text"]))
    messages = [{"role": "user", "content": row["prompt"]}]
    return list(pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def lookup_acceptance(prompt, answer, length):
    """tau of a model-free lookup alone, that drafts `length` tokens a round."""
    full, index, place, rounds = [*prompt, *answer], LookupIndex([*prompt, answer[0]]), len(prompt) + 1, 0
    while place < len(full):
        copy = index.continuation(length)
        accepted = 0
        while (
            copy and accepted < length and full[place + accepted : place + accepted + 1] == [copy.token_ids[accepted]]
        ):
            accepted += 1
        index.extend(full[place : place + accepted + 1])
        place += accepted + 1
        rounds += 1
    return (len(answer) - 1) / max(rounds, 1)


def repeated_share(prompt, answer, n=4):
    """Share of the answer's n-grams that stand earlier in prompt + answer."""
    full = [*prompt, *answer]
    grams = [tuple(full[i : i + n]) for i in range(len(full) - n + 1)]
    first = len(prompt)
    return statistics.mean(grams[i] in set(grams[:i]) for i in range(first, len(grams))) if len(grams) > first else 0.0


def answer_by_stock(pair, ids, max_tokens, temp):
    mx.random.seed(SEED)
    sampler = stock_sampler(temp) if temp else None
    options = {"max_tokens": max_tokens, **({"sampler": sampler} if sampler else {})}
    responses = list(stock_stream_generate(pair.target.model, pair.tokenizer, ids, **options))
    return [r.token for r in responses], responses[-1].generation_tps


def answer_by_us(pair, ids, max_tokens, temp, options):
    responses = list(stream_generate(pair, ids, max_tokens, sampler=make_sampler(temp, seed=SEED), **options))
    last = responses[-1]
    result = {"rounds": last.rounds, "tps": last.generation_tps, "statistics": last.statistics.as_dict()}
    return [t for r in responses for t in r.tokens], result


def measure(pair, rows, max_tokens):
    plan, measured = settings(pair.drafter.config.block_size), []
    for i, row in enumerate(tqdm(rows, unit="prompt")):
        ids, temp = prompt_ids(pair, row), row.get("temp", 0.0)
        stock, tps = answer_by_stock(pair, ids, max_tokens, temp)
        want = answer_by_us(pair, ids, max_tokens, temp, {"method": "ar"})[0] if temp else stock
        done = {"kind": row.get("kind", "all"), "stock_tps": tps, "stock_tokens": len(stock), "tokens": len(want)}
        done |= {"repeated": repeated_share(ids, want), "lookup_tau": lookup_acceptance(ids, want, 15)}
        done["answer"] = pair.tokenizer.decode(want)
        for j in range(len(plan)):
            name, options = plan[(i + j) % len(plan)]
            tokens, done[name] = answer_by_us(pair, ids, max_tokens, temp, options)
            done[name]["identical"] = tokens == want
        measured.append(done)
    return measured


def summarise(rows, names):
    """Ratios of totals: tokens over rounds, and stock's seconds a token over ours."""
    tokens = sum(r["tokens"] - 1 for r in rows)
    stock = sum(r["stock_tokens"] / r["stock_tps"] for r in rows) / sum(r["stock_tokens"] for r in rows)
    lines = [{"setting": "mlx_lm", "tau": "1.00", "tok/s": f"{1 / stock:.0f}", "speedup": "1.00x", "identical": "-"}]
    for name in names:
        seconds = sum(r["tokens"] / r[name]["tps"] for r in rows) / sum(r["tokens"] for r in rows)
        lines.append(
            {
                "setting": name,
                "tau": f"{tokens / max(sum(r[name]['rounds'] for r in rows), 1):.2f}",
                "tok/s": f"{1 / seconds:.0f}",
                "speedup": f"{stock / seconds:.2f}x",
                "identical": f"{sum(r[name]['identical'] for r in rows)}/{len(rows)}",
            }
        )
    return lines


def by_repeats(rows, linear):
    """tau of lookup, the longest linear block and a tree of 32, split at the median repeat share."""
    ordered = sorted(rows, key=lambda r: r["repeated"])
    lines = []
    for name, part in (("fewer repeats", ordered[: len(rows) // 2]), ("more repeats", ordered[len(rows) // 2 :])):
        tokens = sum(r["tokens"] - 1 for r in part)
        lookup = tokens / max(sum((r["tokens"] - 1) / max(r["lookup_tau"], 1e-9) for r in part), 1)
        line = {"half": name, "repeated 4-grams": f"{statistics.mean(r['repeated'] for r in part):.0%}"}
        line["lookup"] = f"{lookup:.2f}"
        line |= {s: f"{tokens / sum(r[s]['rounds'] for r in part):.2f}" for s in (linear, "ddtree 32")}
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, nargs="?", default=Path(str(DEMO / "heldout_prompts.jsonl")))
    parser.add_argument("--model", help="default: the embedded pair")
    parser.add_argument("--draft-model")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--every", type=int, default=1, metavar="K", help="only every K-th prompt")
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pair = load(args.model, args.draft_model)
    names = [name for name, _ in settings(pair.drafter.config.block_size)]
    prompts = [json.loads(line) for line in args.prompts.read_text(encoding="utf-8").splitlines()][:: args.every][
        : args.count
    ]
    measure(pair, prompts[:2], 32)  # warm up: page in weights, start threads, measure the machine
    rows = measure(pair, prompts, args.max_tokens)
    versions = f"mlx {mx.__version__}, mlx-lm {mlx_lm.__version__}, BLAS: {mlx_ddtree.blas}, {platform.platform()}"
    print(f"{len(rows)} prompts, {sum(r['tokens'] for r in rows)} tokens; {versions}")
    kinds = list(dict.fromkeys(r["kind"] for r in rows))
    tables = {kind: summarise([r for r in rows if r["kind"] == kind], names) for kind in kinds}
    for kind, table in tables.items():
        print(f"\n{kind}\n{columns(table)}")
    linear = next(name for name in reversed(names) if name.startswith("dflash") and name[-1].isdigit())
    print(f"\n{columns(by_repeats(rows, linear))}")
    if args.json:
        record = {"machine": versions, "tables": tables, "by_repeats": by_repeats(rows, linear), "rows": rows}
        args.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Measure the embedded pair on held-out prompts: acceptance length and speed against stock mlx_lm.

Usage: python scripts/heldout_report.py [--prompts FILE.jsonl] [--count 60] [--json OUT.json]

Every prompt is answered by stock mlx_lm.stream_generate and by each method and size, one after
the other, so that all sides meet the same machine.  Speedups are ratios within this run.  All
answers at temperature 0 are compared with mlx_lm's, token by token.
"""

import argparse
import json
import platform
import statistics
from pathlib import Path

import mlx_ddtree
from mlx_ddtree import load, stream_generate
from mlx_ddtree.cli import columns
from mlx_ddtree.hub.load import DEMO

import mlx.core as mx  # isort: skip
import mlx_lm  # isort: skip
from mlx_lm.generate import stream_generate as stock_stream_generate  # isort: skip
from tqdm import tqdm  # isort: skip

SETTINGS = [
    ("ar", {}),
    *(("dflash", {"block_size": b}) for b in (4, 5, 6, 8)),
    *(("ddtree", {"tree_budget": n}) for n in (4, 6, 8, 12, 16, 32, 64)),
]


def lookup_acceptance(prompt: list[int], answer: list[int], length: int, longest: int = 4) -> float:
    """tau of a model-free n-gram lookup that drafts `length` tokens a round.

    The draft continues the most recent earlier occurrence of the longest suffix (up to `longest`).
    """
    text, stop, rounds = [*prompt, answer[0]], len(prompt) + len(answer), 0
    full = [*prompt, *answer]
    while len(text) < stop:
        draft: list[int] = []
        for n in range(longest, 0, -1):
            suffix = text[-n:]
            starts = [i for i in range(len(text) - n - 1, -1, -1) if text[i : i + n] == suffix]
            if starts:
                draft = text[starts[0] + n : starts[0] + n + length]
                break
        accepted = 0
        while accepted < len(draft) and len(text) + accepted < stop and draft[accepted] == full[len(text) + accepted]:
            accepted += 1
        text = full[: len(text) + accepted + 1]
        rounds += 1
    return (len(answer) - 1) / max(rounds, 1)


def repeated_share(prompt: list[int], answer: list[int], n: int = 4) -> float:
    """Share of the answer's n-grams that stand earlier in prompt + answer."""
    full = [*prompt, *answer]
    grams = [tuple(full[i : i + n]) for i in range(len(full) - n + 1)]
    first = len(prompt)
    return statistics.mean(grams[i] in set(grams[:i]) for i in range(first, len(grams))) if len(grams) > first else 0.0


def answer_by_stock(pair, ids, max_tokens):
    responses = list(stock_stream_generate(pair.target.model, pair.tokenizer, ids, max_tokens=max_tokens))
    return [r.token for r in responses], responses[-1].generation_tps


def measure(pair, prompts, max_tokens):
    rows = []
    for text in tqdm(prompts, unit="prompt"):
        ids = list(pair.tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True))
        tokens, tps = answer_by_stock(pair, ids, max_tokens)
        row = {
            "prompt": text,
            "tokens": len(tokens),
            "stock_tps": tps,
            "repeated": repeated_share(ids, tokens),
            "lookup_tau": lookup_acceptance(ids, tokens, 7),
            "answer": pair.tokenizer.decode(tokens),
        }
        for method, options in SETTINGS:
            responses = list(stream_generate(pair, ids, max_tokens, method=method, **options))
            mine = [t for r in responses for t in r.tokens]
            key = method + "".join(f" {v}" for v in options.values())
            last = responses[-1]
            row[key] = {"rounds": last.rounds, "tps": last.generation_tps, "identical": mine == tokens}
        rows.append(row)
    return rows


def summarise(rows):
    """Ratios of totals: tokens over rounds, and stock's seconds over ours."""
    tokens = sum(r["tokens"] - 1 for r in rows)
    stock_seconds = sum(r["tokens"] / r["stock_tps"] for r in rows)
    lines = [{"setting": "mlx_lm", "tau": "1.00", "tok/s": f"{tokens / stock_seconds:.0f}", "speedup": "1.00x",
              "identical": f"{len(rows)}/{len(rows)}"}]  # fmt: skip
    for method, options in SETTINGS:
        key = method + "".join(f" {v}" for v in options.values())
        seconds = sum(r["tokens"] / r[key]["tps"] for r in rows)
        lines.append(
            {
                "setting": key,
                "tau": f"{tokens / sum(r[key]['rounds'] for r in rows):.2f}",
                "tok/s": f"{tokens / seconds:.0f}",
                "speedup": f"{stock_seconds / seconds:.2f}x",
                "identical": f"{sum(r[key]['identical'] for r in rows)}/{len(rows)}",
            }
        )
    return lines


def by_repeats(rows):
    """tau of lookup, the best linear block and a tree of 32, split at the median repeat share."""
    ordered = sorted(rows, key=lambda r: r["repeated"])
    lines = []
    for name, part in (("fewer repeats", ordered[: len(rows) // 2]), ("more repeats", ordered[len(rows) // 2 :])):
        tokens = sum(r["tokens"] - 1 for r in part)
        lookup = tokens / sum((r["tokens"] - 1) / max(r["lookup_tau"], 1e-9) for r in part)
        lines.append(
            {
                "half": name,
                "repeated 4-grams": f"{statistics.mean(r['repeated'] for r in part):.0%}",
                "lookup": f"{lookup:.2f}",
                "dflash 8": f"{tokens / sum(r['dflash 8']['rounds'] for r in part):.2f}",
                "ddtree 32": f"{tokens / sum(r['ddtree 32']['rounds'] for r in part):.2f}",
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the embedded pair")
    parser.add_argument("--draft-model")
    parser.add_argument("--prompts", type=Path, default=Path(str(DEMO / "heldout_prompts.jsonl")))
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pair = load(args.model, args.draft_model)
    prompts = [json.loads(line)["prompt"] for line in args.prompts.read_text().splitlines()][: args.count]
    measure(pair, prompts[:2], 32)  # warm up: page in weights, start threads
    rows = measure(pair, prompts, args.max_tokens)
    versions = f"mlx {mx.__version__}, mlx-lm {mlx_lm.__version__}, BLAS: {mlx_ddtree.blas}, {platform.platform()}"
    print(f"{len(rows)} prompts, {sum(r['tokens'] for r in rows)} tokens; {versions}")
    print(columns(summarise(rows)))
    print()
    print(columns(by_repeats(rows)))
    if args.json:
        record = {"machine": versions, "summary": summarise(rows), "by_repeats": by_repeats(rows), "rows": rows}
        args.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

"""Does the answer survive a compressed prompt?  Needle questions answered with the whole prompt and with less of it.

    python studies/prompts/prefill_answers.py --model FOLDER [--tokens 1500] [--seeds 4] [--scorer self lexical SMALL_MODEL] [--json]

One fact in prose, code or repeated text at a depth of 10 to 90 % (mlx_ddtree/benchmarking/needles.py), plain decoding.  An answer is
right if it has the fact's value.  For each way to shorten the prompt: right answers of all, of those that the whole
prompt answers rightly, and the share of tokens or rows that stayed.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from mlx_ddtree import load, stream_generate
from mlx_ddtree.benchmarking.needles import KINDS, needle_case
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.terminal import table_text

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


def variants(keeps: list[float], scorers: list[str]) -> dict[str, dict[str, Any]]:
    """Options of stream_generate by name; the whole prompt first."""
    named: dict[str, dict[str, Any]] = {"whole prompt": {}}
    for keep, scorer in product(keeps, scorers):
        named[f"{Path(scorer).name} {keep}"] = {
            "compression": PrefillCompression("always", keep_ratio=keep, scorer=scorer, least=500)
        }
    keep = keeps[0]
    compact = PrefillCompression("always", keep_ratio=keep, scorer="self", positions="compact", least=500)
    named[f"self {keep}, compact"] = {"compression": compact}
    return named | {f"kv filter {keep}": {"kv_keep_ratio": keep} for keep in keeps}


def answer(pair: Pair, prompt: str, options: dict[str, Any]) -> tuple[str, float]:
    """The text, and the share of the prompt that stayed."""
    text, last = "", None
    for last in stream_generate(pair, [{"role": "user", "content": prompt}], 32, method="ar", **options):
        text += last.text
    report = None if last is None else last.compression
    if report is None:
        return text, 1.0
    rows, kept = report.kv_rows or (1, 1)
    return text, report.ratio * kept / rows


def characters_of(pair: Pair, kind: str, tokens: int) -> int:
    """About how many characters of a kind of text are so many tokens."""
    sample = needle_case(kind, 8000, 0.5, 0).prompt
    return round(tokens * len(sample) / len(pair.tokenizer.encode(sample)))


def measure(pair: Pair, options: argparse.Namespace) -> list[dict[str, Any]]:
    results: dict[str, dict[str, list[Any]]] = {}
    named, sizes = (
        variants(options.keep, options.scorer),
        {kind: characters_of(pair, kind, options.tokens) for kind in KINDS},
    )
    for seed, depth, kind in product(range(options.seeds), options.depths, KINDS):
        case = needle_case(kind, sizes[kind], depth, 500 + seed)
        whole = False
        for name, how in named.items():
            text, share = answer(pair, case.prompt, how)
            right = case.fact.value in text
            whole = right if name == "whole prompt" else whole
            of = results.setdefault(name, {"kept": [], "kind": [], "right": [], "whole": []})
            for key, value in (("kept", share), ("kind", kind), ("right", right), ("whole", whole)):
                of[key].append(value)
    return [row_of(name, of) for name, of in results.items()]


def row_of(name: str, of: dict[str, list[Any]]) -> dict[str, Any]:
    count = len(of["right"])
    row: dict[str, Any] = {"prompt": name, "kept": f"{sum(of['kept']) / count:.0%}"}
    row["right"] = f"{sum(of['right'])}/{count}"
    row["of those the whole answers"] = (
        f"{sum(r and w for r, w in zip(of['right'], of['whole'], strict=True))}/{sum(of['whole'])}"
    )
    for kind in KINDS:
        mine = [(r, w) for r, w, k in zip(of["right"], of["whole"], of["kind"], strict=True) if k == kind]
        row[kind] = f"{sum(r and w for r, w in mine)}/{sum(w for _, w in mine)}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a target that can look things up")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--depths", type=float, nargs="+", default=DEPTHS)
    parser.add_argument("--scorer", nargs="+", default=["self", "lexical"])
    parser.add_argument("--keep", type=float, nargs="+", default=[0.3, 0.2])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(load(options.model, False), options)
    print(json.dumps(rows) if options.json else table_text(rows))


if __name__ == "__main__":
    main()

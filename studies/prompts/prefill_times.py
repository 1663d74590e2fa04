"""What a compressed prompt saves: time to the first token, the target's prefill, and the scorer's share of the work.

    python studies/prompts/prefill_times.py [--model FOLDER] [--tokens 4096] [--keep 0.2] [--scorer self lexical] [--json]

Every repetition runs all variants in turn, dense first; medians.  Ratios of the first token are those of the process's CPU
seconds, which a busy machine changes less than it changes wall time; run it with MKL_NUM_THREADS=1.  The prompt is prose with a question about it
(mlx_ddtree/benchmarking/needles.py) through the chat template.  FLOPs are multiplications of the weights' products and of
attention, for models all of whose layers are dense attention.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from time import perf_counter, process_time
from typing import Any

from mlx_ddtree import load, stream_generate
from mlx_ddtree.benchmarking.needles import needle_case
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.pflash.scorers import scorer_of
from mlx_ddtree.pflash.scoring import TailAttentionScorer
from mlx_ddtree.terminal import table_text


def prompt_of(pair: Pair, tokens: int) -> list[dict[str, str]]:
    """Messages of about so many tokens."""
    best: tuple[int, list[dict[str, str]]] | None = None
    for characters in range(round(2.5 * tokens), 4 * tokens, tokens // 25):
        messages = [{"role": "user", "content": needle_case("prose", characters, 0.5, 0).prompt}]
        off = abs(len(pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True)) - tokens)
        if best is None or off < best[0]:
            best = off, messages
    assert best is not None
    return best[1]


def flops(text: Any, tokens: int, layers: int, *, scoring: bool = False) -> float:
    """Multiplications of a text model's first `layers` over so many tokens; as a scorer, of the last one only queries
    and keys."""
    args = text.args
    width = args.num_attention_heads * args.head_dim
    attention = tokens**2 * width  # causal: half of queries times keys, half of probabilities times values
    total = 0.0
    for i, layer in enumerate(text.model.layers[:layers]):
        ours = layer.self_attn
        if scoring and i == layers - 1:
            total += tokens * (ours.q_proj.weight.size + ours.k_proj.weight.size)
        else:
            projections = (ours.q_proj, ours.k_proj, ours.v_proj, ours.o_proj)
            mlp = (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj)
            total += tokens * sum(m.weight.size for m in (*projections, *mlp)) + attention
    return total


def first_token(pair: Pair, messages: Any, **options: Any) -> dict[str, Any]:
    """Seconds by stage until it is there."""
    started, worked = perf_counter(), process_time()
    stream = stream_generate(pair, messages, 2, method="ddtree", tree_budget=8, parity="off", **options)
    response = next(iter(stream))
    seconds, cpu = perf_counter() - started, process_time() - worked
    report = response.compression
    stages = {} if report is None else report.seconds
    kept = response.prompt_tokens if report is None else report.kept_tokens
    prefill = stages.get("prefill", response.seconds["prefill"])
    return {"first_token": seconds, "cpu": cpu, "score": stages.get("score", 0.0), "prefill": prefill, "kept": kept}


def measure(pair: Pair, options: argparse.Namespace) -> list[dict[str, Any]]:
    messages = prompt_of(pair, options.tokens)
    variants: dict[str, dict[str, Any]] = {"dense": {}}
    for name in options.scorer:
        variants[name] = {"compression": PrefillCompression("always", keep_ratio=options.keep, scorer=name)}
    variants["kv filter"] = {"kv_keep_ratio": options.keep}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    first_token(pair, messages, **variants[options.scorer[-1]])  # warms up, loads what is to be loaded
    for _ in range(options.repeats):
        for name, how in variants.items():
            runs[name].append(first_token(pair, messages, **how))
    rows, dense = [], {key: median(run[key] for run in runs["dense"]) for key in ("cpu", "prefill")}
    for name, done in runs.items():
        middle = {key: median(run[key] for run in done) for key in ("first_token", "cpu", "score", "prefill")}
        scorer: Any = scorer_of(pair, name) if name in options.scorer else None
        reads = isinstance(scorer, TailAttentionScorer)
        share = flops(scorer.text, options.tokens, scorer.layers, scoring=True) if reads else 0.0
        rows.append(
            {
                "prompt": name,
                "kept": done[0]["kept"],
                **{f"{key} s": round(value, 3) for key, value in middle.items()},
                "first token": f"{middle['cpu'] / dense['cpu']:.2f}x",
                "target prefill": f"{middle['prefill'] / dense['prefill']:.2f}x",
                "scorer FLOPs": f"{share / flops(pair.target.text, options.tokens, pair.target.num_layers):.3f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="target (default: the embedded one)")
    parser.add_argument("--draft-model", help="drafter (default: the embedded one)")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--keep", type=float, default=0.2)
    parser.add_argument("--scorer", nargs="+", default=["self", "lexical"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(load(options.model, options.draft_model), options)
    print(json.dumps(rows) if options.json else table_text(rows))


if __name__ == "__main__":
    main()

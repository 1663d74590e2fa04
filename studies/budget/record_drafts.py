"""Record what a pair's drafter proposes at every position of its target's greedy answers, for simulate_machines.py.

Usage: python studies/budget/record_drafts.py PROMPTS.jsonl OUT.npz [--count 24] [--max-tokens 192] [--top-k 16]

PROMPTS.jsonl holds {"prompt": ...} or {"text": ...} (raw, no chat template), and may name a "kind" and a "temp": a seed's
draws depend on the position alone, so the answer is one that any policy would get, as a greedy one is.
"""

import argparse
import json
from pathlib import Path

import mlx_ddtree  # noqa: F401  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlx_ddtree import load, make_sampler, stream_generate
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.draft import draft
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.state import DecodeState


def prompt_ids(pair, row):
    if "text" in row:
        return list(pair.tokenizer.encode(row["text"]))
    return list(
        pair.tokenizer.apply_chat_template([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)
    )


def record(pair, prompt, temp, max_tokens, top_k):
    """The answer, and for every position that may be a root the drafter's (L, K) candidates."""
    sampler = make_sampler(temp, seed=0) if temp else None
    answer = [t for r in stream_generate(pair, prompt, max_tokens, method="ar", sampler=sampler) for t in r.tokens]
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, [*prompt, answer[0]], 512)
    rows = []
    for token in answer[1:]:
        rows.append(draft(state, pair.drafter.config.block_size, top_k))
        _, features = pair.target.forward(mx.array([[state.root]]), state.caches.target)
        state.append_features(features)
        state.length, state.root = state.length + 1, token
    token_ids, log_probs = (np.stack(part) for part in zip(*rows, strict=True))
    return answer, token_ids.astype(np.int32), log_probs.astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--draft-model")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--top-k", type=int, default=16)
    args = parser.parse_args()
    pair = load(args.model, args.draft_model)
    arrays = {}
    rows = [json.loads(line) for line in args.prompts.read_text(encoding="utf-8").splitlines()][: args.count]
    for i, row in enumerate(tqdm(rows, unit="prompt")):
        prompt = prompt_ids(pair, row)
        answer, token_ids, log_probs = record(pair, prompt, row.get("temp", 0.0), args.max_tokens, args.top_k)
        if len(answer) > 1:
            arrays |= {f"prompt{i}": prompt, f"answer{i}": answer, f"tokens{i}": token_ids, f"scores{i}": log_probs}
            arrays[f"kind{i}"] = np.array(row.get("kind", "all"))
    np.savez_compressed(args.out, **arrays)


if __name__ == "__main__":
    main()

"""What the ranks of these tests run: `python -m tests.distributed.programs NAME ARGUMENTS...`."""

import json
import sys

import mlx_ddtree
from mlx_ddtree import make_sampler, stream_generate
from mlx_ddtree.decoding import measure

PROMPT = "Write a function that merges two sorted lists."


def answers(length, parity, pipeline, *folders):
    """Every way of decoding on every pair, and what it exchanged; one JSON line for each."""
    for folder in folders:
        pair = mlx_ddtree.sharded_load(*pair_of(folder), pipeline=pipeline == "pipeline")
        for result in decode_all(pair, int(length), parity):
            print(json.dumps({"folder": folder} | result))


def decode_all(pair, length, parity):
    pair.tokenizer.eos_token_ids.clear()
    ids = pair.tokenizer.encode(PROMPT)
    for temp in (0, 0.7):
        for method, budget in (("ar", 0), ("dflash", None), ("ddtree", 11)):
            sampler, last, tokens = make_sampler(temp, seed=5), None, []
            size = {"block_size": 5} if budget is None else {"tree_budget": budget}
            how = {"method": method, "sampler": sampler, "parity": parity, **size}
            for last in stream_generate(pair, ids, length, **how):
                tokens += last.tokens
            exchange = last.statistics.exchange
            yield {
                "how": [temp, method],
                "tokens": tokens,
                "rounds": last.rounds,
                "exchange": exchange and exchange.as_dict(),
                "bytes": pair.target.make_cache()[0].nbytes,
            }


def pair_of(folder):
    return (None, None) if folder == "embedded" else (f"{folder}/target", f"{folder}/drafter")


if __name__ == "__main__":
    measure.REPEATS, measure.PATIENCE, measure.ROWS = 1, 0.0, (1, 2, 4, 8, 16, 32)  # as tests/conftest.py has it
    globals()[sys.argv[1]](*sys.argv[2:])

"""The embedded pair: the same tokens as mlx_lm on prompts it never saw, and drafts worth having."""

import json
from pathlib import Path

import pytest
from mlx_lm.generate import stream_generate as stock_stream_generate

from mlx_ddtree import load, stream_generate
from mlx_ddtree.hub.load import DEMO

from ..decoding.test_lossless import METHODS

PROMPTS = [json.loads(line)["prompt"] for line in Path(str(DEMO / "heldout_prompts.jsonl")).read_text().splitlines()]


@pytest.fixture(scope="module")
def pair():
    return load()


@pytest.fixture(scope="module")
def answers(pair):
    """mlx_lm's own answers to 50 held-out prompts, up to 128 tokens."""
    result = {}
    for prompt in PROMPTS[:50]:
        ids = tuple(
            pair.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
        )
        stock = stock_stream_generate(pair.target.model, pair.tokenizer, list(ids), max_tokens=128)
        result[ids] = [response.token for response in stock]
    return result


@pytest.mark.parametrize("method", METHODS)
def test_tokens_equal_mlx_lm_on_fifty_prompts(pair, answers, method):
    for ids, tokens in answers.items():
        assert [t for r in stream_generate(pair, list(ids), 128, method=method) for t in r.tokens] == tokens


def test_drafts_are_worth_having(pair, answers):
    """A broken tap, position or feature would show as an acceptance length near 1."""

    def acceptance_length(**options):
        rounds = emitted = 0
        for ids in list(answers)[:10]:
            *_, last = stream_generate(pair, list(ids), 128, **options)
            rounds, emitted = rounds + last.rounds, emitted + last.generation_tokens - 1
        return emitted / rounds

    linear, tree = acceptance_length(method="dflash", block_size=8), acceptance_length(tree_budget=32)
    assert linear > 4.0
    assert tree > 1.2 * linear


def test_the_pair_fits_the_package(pair):
    files = [p for folder in ("target", "drafter") for p in Path(str(DEMO / folder)).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 30e6

"""The embedded pair: the same tokens as mlx_lm on prompts it never saw, and drafts worth having."""

import json
from functools import cache
from pathlib import Path

import pytest
from mlx_lm.generate import stream_generate as stock_stream_generate

from mlx_ddtree import load, stream_generate
from mlx_ddtree.hub.names import DEMO

from ..decoding.test_lossless import METHODS

PROMPTS = [json.loads(line)["prompt"] for line in Path(str(DEMO / "heldout_prompts.jsonl")).read_text().splitlines()]


@pytest.fixture(scope="module")
def pair():
    return load()


@pytest.fixture(scope="module")
def answers(pair):
    """From a prompt's place to (its ids, mlx_lm's own answer of up to 128 tokens)."""

    @cache
    def answer(place):
        messages = [{"role": "user", "content": PROMPTS[place]}]
        ids = pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        stock = stock_stream_generate(pair.target.model, pair.tokenizer, list(ids), max_tokens=128)
        return list(ids), [response.token for response in stock]

    return answer


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
def test_tokens_equal_mlx_lm(pair, answers, method, count):
    for ids, tokens in map(answers, range(count)):
        assert [t for r in stream_generate(pair, ids, 128, method=method) for t in r.tokens] == tokens


def test_drafts_are_worth_having(pair, answers):
    """A broken tap, position or feature would show as an acceptance length near 1."""

    def acceptance_length(**options):
        rounds = emitted = 0
        for ids, _ in map(answers, range(10)):
            *_, last = stream_generate(pair, ids, 128, **options)
            rounds, emitted = rounds + last.rounds, emitted + last.generation_tokens - 1
        return emitted / rounds

    linear, tree = acceptance_length(method="dflash", block_size=8), acceptance_length(tree_budget=32)
    assert linear > 4.0
    assert tree > 1.2 * linear


def test_the_pair_fits_the_package(pair):
    files = [p for folder in ("target", "drafter") for p in Path(str(DEMO / folder)).rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 30e6

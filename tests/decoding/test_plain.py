"""A run of plain steps is one step ahead of the host, and what it notes of the caches is not."""

from functools import cache

import pytest

from mlx_ddtree import make_prompt_cache, make_sampler, stream_generate
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import Clock
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import EndlessText

from .. import families
from .test_lossless import our_tokens

tiny_pair = cache(families.tiny_pair)


@pytest.mark.parametrize("family", ["qwen3", "gpt_oss"])
def test_the_exact_part_of_a_cache_ends_at_its_mark(family):
    """Also in the middle of a run, when the next step's token is in the caches already and not yet part of the text."""
    pair = tiny_pair(family)
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, list(range(5, 30)), 8)
    rounds = plain_rounds(state, RoundPlan("ar", 1, 0, make_sampler()), EndlessText(), Clock(), lambda done: done < 5)
    for done, _ in enumerate(rounds, 1):
        caches = pair.target.copy_cache(state.caches.target)
        pair.target.rewind(caches, state.exact_mark)
        assert {layer.offset for layer in caches} == {state.exact} == {24 + done}


def counted(monkeypatch, owner, name):
    """Lengths of the token rows that go into a method of one instance from now on."""
    lengths = []
    own = getattr(owner, name)

    def call(token_ids, *args, **options):
        lengths.append(token_ids.shape[1])
        return own(token_ids, *args, **options)

    monkeypatch.setattr(owner, name, call)
    return lengths


@pytest.mark.parametrize("n", [1, 2, 9])
def test_no_step_is_made_behind_the_last_token(monkeypatch, n):
    """As in mlx-lm: so many tokens are so many steps, of which the prompt's last token is the first."""
    pair = tiny_pair("qwen3")
    lengths = counted(monkeypatch, pair.target, "forward")
    tokens = our_tokens(pair, list(range(5, 30)), n, method="ar")
    assert len(tokens) == n
    assert lengths.count(1) == n


@pytest.mark.parametrize("how", [{"method": "dflash", "block_size": 4}, {"tree_budget": 6}, {"tree_budget": "auto"}])
def test_no_draft_is_made_behind_the_last_token(monkeypatch, how):
    """Whatever a round accepts, the text's length, an end token or a stop string ends it there."""
    pair = families.tiny_pair("qwen3")
    our_tokens(pair, list(range(5, 30)), 2, parity="off", **how)  # measures, where that is asked for
    drafted = []
    own = pair.drafter.block_ids
    monkeypatch.setattr(pair.drafter, "block_ids", lambda *args: drafted.append(1) or own(*args))
    for n in range(1, 12):
        drafted.clear()
        *_, last = stream_generate(pair, list(range(5, 30)), n, parity="off", **how)
        assert last.finish_reason == "length"
        assert len(drafted) == last.statistics.kinds["draft"]


@pytest.mark.parametrize("how", [{"method": "ar"}, {"tree_budget": 6}])
def test_the_next_round_begins_before_the_first_token_is_handed_out(monkeypatch, how):
    """The device works while the caller handles it; and nothing of that stays where the caller goes away."""
    pair = families.tiny_pair("qwen3")
    prompt = list(range(5, 30))
    begun = []
    for owner, name in ((pair.target, "embed"), (pair.drafter, "block_ids")):
        own = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, own=own: begun.append(1) or own(*args))
    steps = counted(monkeypatch, pair.target, "forward")
    prompt_cache = make_prompt_cache(pair)
    stream = stream_generate(pair, prompt, 9, prompt_cache=prompt_cache, **how)
    first = next(stream)
    assert begun or steps.count(1) == 2
    stream.close()
    assert prompt_cache.token_ids == [*prompt, *first.tokens]
    assert prompt_cache.length == len(prompt) + 1

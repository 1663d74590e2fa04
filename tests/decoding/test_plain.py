"""A run of plain steps is one step ahead of the host, and what it notes of the caches is not."""

from functools import cache

import pytest

from mlx_ddtree import make_prompt_cache, make_sampler
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import Clock
from mlx_ddtree.decoding.state import DecodeState

from .. import families

tiny_pair = cache(families.tiny_pair)


@pytest.mark.parametrize("family", ["qwen3", "gpt_oss"])
def test_the_exact_part_of_a_cache_ends_at_its_mark(family):
    """Also in the middle of a run, when the next step's token is in the caches already and not yet part of the text."""
    pair = tiny_pair(family)
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, list(range(5, 30)), 8)
    rounds = plain_rounds(state, RoundPlan("ar", 1, 0, make_sampler()), len, Clock(), lambda done: done < 5)
    for done, _ in enumerate(rounds, 1):
        caches = pair.target.copy_cache(state.caches.target)
        pair.target.rewind(caches, state.exact_mark)
        assert {layer.offset for layer in caches} == {state.exact} == {24 + done}

"""A verification that is made before its tree is known says what one that is made afterwards says, kernels included."""

import mlx.core as mx
import pytest

from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import MOST_SPOILT, AheadBuilder
from mlx_ddtree.kernels.choice import KernelSet, always
from mlx_ddtree.kernels.metal import note_wait
from mlx_ddtree.kernels.tree_attention import tree_attention_ops
from mlx_ddtree.tuning.rounds import filled

from .. import families, helpers
from .test_lossless import our_tokens, stock_tokens

PROMPT = [3, 14, 15, 9, 26, 5, 35]


class Attention:
    """A kernel's place in a verification, taken by MLX's operations, which wait where a new variant would.

    waits: calls that evaluate what they have made.  calls: so far.
    """

    def __init__(self, waits: int = 0) -> None:
        self.waits = waits
        self.calls = 0

    def __call__(self, *args, **how):
        out = tree_attention_ops(*args, **how)
        self.calls += 1
        if self.calls <= self.waits:
            note_wait()
            mx.eval(out)
        return out


@pytest.mark.parametrize("waits", [0, 1, 9, 10**9])
@pytest.mark.parametrize("tree_budget", [3, 8])
@pytest.mark.parametrize("family", ["qwen3", "gpt_oss"])
def test_tokens_are_the_same_whichever_launches_are_waited_for(family, tree_budget, waits):
    pair = families.tiny_pair(family)
    attention = Attention(waits)
    pair.target.kernels = always(KernelSet(attention=attention))
    assert our_tokens(pair, PROMPT, 40, parity="off", tree_budget=tree_budget) == stock_tokens(pair, PROMPT, 40)
    assert attention.calls


def test_graphs_are_made_ahead_over_kernels_whose_launches_are_known():
    state: DecodeState = filled(helpers.small_pair(), 20)
    state.pair.target.kernels = always(KernelSet(attention=Attention()))
    before = [layer_cache.offset for layer_cache in state.caches.target]
    built = AheadBuilder(state).build(5, chain=False)
    assert built is not None
    built.give_up()
    assert [layer_cache.offset for layer_cache in state.caches.target] == before


def test_a_graph_that_has_read_blanks_is_given_up_and_after_a_few_no_more_are_made():
    state = filled(helpers.small_pair(), 20)
    attention = Attention(10**9)
    state.pair.target.kernels = always(KernelSet(attention=attention))
    before = [layer_cache.offset for layer_cache in state.caches.target]
    ahead = AheadBuilder(state)
    for _ in range(MOST_SPOILT):
        assert ahead.builds
        assert ahead.build(5, chain=False) is None
    assert [layer_cache.offset for layer_cache in state.caches.target] == before
    calls = attention.calls
    assert ahead.build(5, chain=False) is None and attention.calls == calls

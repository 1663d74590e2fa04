"""Whatever asks for positions takes those of the running forward: rows anywhere are what they are behind so many tokens."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.rope_utils import DynamicNTKScalingRoPE, YarnRoPE

from mlx_ddtree.kernels.rope import TreeRope
from mlx_ddtree.target import TreeTarget

from ..every_model import every_model
from ..families import tiny_model

PLACES = [[7, 3, 11, 3, 30], [0, 5, 5, 9, 31]]
ROPES = {
    "plain": lambda: nn.RoPE(8),
    "dynamic, within": lambda: DynamicNTKScalingRoPE(8, 64, False, 1e4, 2.0),
    "dynamic, behind": lambda: DynamicNTKScalingRoPE(8, 8, False, 1e4, 2.0),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("make", ROPES.values(), ids=ROPES.keys())
def test_rows_turn_as_single_rows_do(make, batch):
    """Bit for bit, also where a row turns by the length of the text up to it."""
    rope, x = make(), mx.random.normal((batch, 3, 5, 16))
    got = TreeRope(rope)(x, mx.array(PLACES[:batch], mx.int32))
    for b in range(batch):
        for i, place in enumerate(PLACES[b]):
            want = rope(x[b : b + 1, :, i : i + 1], offset=place)
            np.testing.assert_array_equal(np.array(got[b : b + 1, :, i : i + 1]), np.array(want))


def test_a_rope_is_asked_with_all_its_options():
    rope, x = YarnRoPE(8, scaling_factor=4.0), mx.random.normal((1, 2, 3, 8))
    got = TreeRope(rope)(x, offset=5, scale=2.0, inverse=True)
    np.testing.assert_array_equal(np.array(got), np.array(rope(x, offset=5, scale=2.0, inverse=True)))


@pytest.mark.parametrize("name", ["gpt2", "nanochat", "talkie", "afm7", "ministral3", "qwen3"])
def test_rows_anywhere_are_what_they_are_there(name):
    """Consecutive positions, given one by one or as a gap, are the model's own behind so many tokens; scattered ones are
    not those in a row."""
    target = TreeTarget(every_model(name))
    tokens = mx.array([[3, 14, 15, 9]])

    def hidden(at):
        return np.array(target.forward(tokens, target.make_cache(), at)[0])

    plain = hidden(0)
    np.testing.assert_allclose(hidden(mx.arange(4)[None]), plain, atol=1e-4)
    np.testing.assert_allclose(hidden(mx.arange(20, 24)[None]), hidden(20), atol=1e-4)
    assert np.abs(hidden(mx.array([[0, 5, 90, 3]])) - plain).max() > 1e-2


def test_a_model_that_turns_by_length_is_not_built_ahead():
    assert TreeTarget(tiny_model({"model_type": "qwen3"})).builds_ahead
    dynamic = {"model_type": "qwen3", "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    assert not TreeTarget(tiny_model(dynamic)).builds_ahead

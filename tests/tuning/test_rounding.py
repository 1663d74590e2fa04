"""The margins below which a choice is not trusted: never 0, and measured on all that a verification can meet."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.tuning import rounding
from mlx_ddtree.tuning.rounding import measure_parity

from ..decoding.test_lossless import our_tokens, stock_tokens
from ..families import tiny_pair
from ..helpers import small_pair

pytestmark = pytest.mark.usefixtures("thorough_rounding")


def in_type(pair, dtype):
    pair.target.model.set_dtype(dtype)
    pair.drafter.set_dtype(dtype)
    return pair


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_bounds_are_at_least_two_steps_of_the_logits_where_no_change_was_seen(monkeypatch, dtype):
    """A sample that happens to round alike everywhere is no proof that all texts do."""
    monkeypatch.setattr(rounding, "_change", lambda plain, by_rows: 0.0)
    pair = in_type(small_pair(), dtype)
    hidden, _ = pair.target.forward(mx.array([[3]]), pair.target.make_cache())
    logits = pair.target.unembed(hidden[0])
    bounds = measure_parity(pair)
    assert bounds.rows == bounds.cache >= 2 * mx.finfo(logits.dtype).eps
    best = float(mx.abs(logits.astype(mx.float32)).max())
    assert bounds.rows < 64 * mx.finfo(logits.dtype).eps * max(best, 1.0)


@pytest.mark.parametrize("name", ["qwen3_5", "llama, windows"])
def test_16_bit_targets_say_what_plain_decoding_says(name):
    """Measured on a chain behind a short text alone, the bound of these was 0 and nothing was guarded."""
    rng = np.random.default_rng(7)
    for seed in range(2):
        pair = in_type(tiny_pair(name, seed=seed), mx.bfloat16)
        prompt = rng.integers(0, 64, 20).tolist()
        assert our_tokens(pair, prompt, 80, tree_budget=8) == stock_tokens(pair, prompt, 80)


@pytest.mark.parametrize("width", rounding.WIDTHS)
@pytest.mark.parametrize("bushy", [False, True])
def test_trees_hold_the_text_as_a_path_from_the_root(width, bushy):
    tokens = list(range(10, 40))
    tree, path = rounding._tree_along(tokens, width, bushy)
    assert len(tree) == width and path[0] == 0
    assert tree.token_ids[path].tolist() == tokens[: len(path)]
    assert tree.parents[path[1:]].tolist() == path[:-1]
    assert tree.is_chain == (not bushy or width == 2)


def test_the_long_text_wraps_every_sliding_window():
    pair = tiny_pair("llama, windows")
    windows = [layer.max_size for layer in pair.target.make_cache() if getattr(layer, "max_size", None)]
    prompt = rounding._long_prompt(pair, rounding.sample_prompt(pair))
    assert windows and len(prompt) > max(windows) + max(rounding.WIDTHS)
    assert len(prompt) + rounding.LONG_STEPS + max(rounding.WIDTHS) <= pair.target.max_context

"""A draw that rounding could change is called close, under every filter; others are not, so that few rows are lost."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.sample_utils import apply_top_p

from mlx_ddtree.decoding.filter_edges import top_p_edges
from mlx_ddtree.decoding.sampler import log_probs_of, make_sampler
from mlx_ddtree.decoding.sampling import choose_tokens
from mlx_ddtree.tree import DraftTree

VOCAB = 200
FILTERS = [
    {},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"top_k": 7},
    {"top_k": VOCAB},
    {"top_p": 0.8, "top_k": 20},
    {"top_p": 0.95, "min_p": 0.02, "top_k": 30},
    {"min_p": 0.3, "min_tokens_to_keep": 3},
    {"top_p": 0.7, "min_p": 0.5, "min_tokens_to_keep": 4, "top_k": 9},
]
XTC = {"top_p": 0.9, "xtc_probability": 0.5}
"""Judged by drawing again: a choice that is close to the worst rounding of XTC's own making may be missed."""


def logits_of(seed, rows, spread):
    return np.random.default_rng(seed).normal(scale=spread, size=(rows, VOCAB)).astype(np.float32)


def chosen_and_close(logits, bound, seed, dtype=mx.float32, **filters):
    tree = DraftTree.chain(np.arange(len(logits)))
    sampler = make_sampler(0.8, seed=seed, **filters)
    choices = choose_tokens(mx.array(logits).astype(dtype), tree, 5, [], sampler, bound=bound)
    close = None if choices.close is None else np.array(choices.close)
    return np.array(choices.token_ids), close


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.003, 0.03, 0.3]), st.sampled_from([0.3, 2.0, 6.0]))
def test_a_draw_that_rounding_changes_is_close(filters, seed, bound, spread):
    """Two logits of a row move against each other by `bound` at most."""
    logits = logits_of(seed, 12, spread)
    chosen, close = chosen_and_close(logits, bound, seed, **filters)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        moves = rng.choice([-0.5, 0.5], size=logits.shape).astype(np.float32) * np.float32(0.999 * bound)
        moved, _ = chosen_and_close(logits + moves, 0.0, seed, **filters)
        assert close[moved != chosen].all()


@pytest.mark.parametrize("filters", [*FILTERS, XTC], ids=str)
def test_asking_changes_no_draw(filters):
    for dtype in (mx.float32, mx.bfloat16):
        logits = logits_of(1, 64, 3.0)
        plainly, none = chosen_and_close(logits, 0.0, 3, dtype, **filters)
        asked, _ = chosen_and_close(logits, 1e-3, 3, dtype, **filters)
        assert none is None
        assert asked.tolist() == plainly.tolist()


@pytest.mark.parametrize("filters", [*FILTERS, XTC], ids=str)
def test_few_draws_are_close(filters):
    """At the rounding of fp32; a distribution of which one token is left is never in doubt."""
    logits = logits_of(2, 400, 3.0)
    _, close = chosen_and_close(logits, 1e-4, 4, **filters)
    assert close.mean() < 0.01
    logits[:, 11] += 40
    chosen, close = chosen_and_close(logits, 1e-4, 4, **filters)
    assert (chosen == 11).all()
    assert not close.any()


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_forbidden_tokens_do_not_rival(filters):
    """A grammar leaves -inf where nothing may come."""
    logits = logits_of(3, 50, 3.0)
    logits[:, 5:] = -np.inf
    chosen, close = chosen_and_close(logits, 1e-4, 4, **filters)
    assert (chosen < 5).all()
    assert close.mean() < 0.1


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([7, 3000]),
    st.sampled_from([0.01, 1.0, 5.0]),
    st.sampled_from([0.05, 0.9, 0.999]),  # mlx-lm compiles its filter for each
)
def test_the_edge_of_top_p_is_mlx_lms(seed, vocab, spread, top_p):
    """Also where more tokens are kept than are looked at first; sums of probabilities may differ in their last bits."""
    logits = np.random.default_rng(seed).normal(scale=spread, size=(3, vocab)).astype(np.float32)
    log_probs = np.array(log_probs_of(mx.array(logits)))
    kept = log_probs >= top_p_edges(log_probs, top_p)
    wider, narrower = (np.array(apply_top_p(mx.array(log_probs), top_p + by)) > -np.inf for by in (1e-5, -1e-5))
    assert (narrower <= kept).all()
    assert (kept <= wider).all()


def test_several_rows_are_normalised_as_one_is():
    logits = mx.array(logits_of(5, 6, 4.0))
    alone = mx.concatenate([log_probs_of(logits[i : i + 1]) for i in range(6)])
    assert np.allclose(np.array(log_probs_of(logits)), np.array(alone), atol=1e-5)

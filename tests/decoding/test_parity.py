"""At temperature 0 rounding decides nothing: the tokens are plain decoding's even where kernels disagree."""

from collections import Counter
from dataclasses import replace
from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree import make_prompt_cache, make_sampler, stream_generate
from mlx_ddtree.decoding.sampling import choose_tokens
from mlx_ddtree.errors import OptionError
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tuning.measure import profile_of
from mlx_ddtree.tuning.rounding import measure_parity

from ..helpers import small_pair
from .rounding import round_blocks
from .test_lossless import our_tokens, without_end

pytestmark = pytest.mark.usefixtures("thorough_rounding")

PROMPTS = [[5, 9 + 3 * i, 23, 41 - i, 12, 7 + i] for i in range(10)]
BITS = 6


def rounding_pair(bits=BITS):
    pair = without_end(small_pair())
    round_blocks(pair.target, bits)
    return pair


def divergences(pair, **options):
    return sum(our_tokens(pair, prompt, 64, **options) != want for prompt, want in zip(PROMPTS, plain(), strict=True))


@cache
def plain():
    """Plain decoding's answers; the rounding does not touch single rows, and the prompt's is the same for all."""
    return [our_tokens(rounding_pair(), prompt, 64, method="ar") for prompt in PROMPTS]


def test_this_target_would_drift_without_a_guard():
    """Or the tests below would show nothing."""
    assert divergences(rounding_pair(), tree_budget=12, parity="off") > 0


@pytest.mark.parametrize("how", [{"tree_budget": 12}, {"tree_budget": 1}, {"method": "dflash", "block_size": 6}, {}])
def test_exact_parity_gives_plain_decodings_tokens(how):
    assert divergences(rounding_pair(), **how) == 0


def test_rows_parity_drifts_less_than_none():
    pair = rounding_pair()
    assert divergences(pair, tree_budget=12, parity="rows") < divergences(pair, tree_budget=12, parity="off")


def test_near_ties_are_counted():
    pair = rounding_pair()
    ties = 0
    for prompt in PROMPTS:
        *_, last = stream_generate(pair, prompt, 64, tree_budget=12)
        ties += last.statistics.kinds["tie"]
        assert last.statistics.kinds.total() == last.rounds
    assert ties > 0


def test_an_exact_cache_is_left_behind():
    """After a remade cache the next call continues from what plain decoding would have cached."""
    pair = rounding_pair()
    bounds = profile_of(pair).parity
    profile_of(pair).parity = bounds._replace(rows=1e9, cache=1e9)  # every token is a near tie
    ours, plain = make_prompt_cache(pair), make_prompt_cache(pair)
    tokens = our_tokens(pair, PROMPTS[0], 24, tree_budget=12, prompt_cache=ours)
    assert tokens == our_tokens(pair, PROMPTS[0], 24, method="ar", prompt_cache=plain)
    for a, b in zip(ours[: pair.target.num_layers], plain[: pair.target.num_layers], strict=True):
        for x, y in zip(a.keys_and_values(), b.keys_and_values(), strict=True):
            np.testing.assert_array_equal(np.array(x), np.array(y))


@pytest.mark.parametrize("held", [1, 256])
def test_a_near_tie_ends_a_run_of_plain_steps(monkeypatch, held):
    """Steps run ahead of the host; at a near tie on an inexact cache they are taken back, features included."""
    monkeypatch.setattr("mlx_ddtree.decoding.plain.FEATURES_HELD", held)
    pair = rounding_pair()
    cost = profile_of(pair).cost
    # Nearly all is decoded plainly, behind a few drafts.
    cost.become(replace(cost, plain=[1e-5 for _ in cost.plain]))
    for name in ("SHORTEST", "MOST"):
        monkeypatch.setattr(f"mlx_ddtree.budget.ledger.{name}", 10**9)
    cost.saw_step = lambda *args: None
    profile_of(pair).parity = profile_of(pair).parity._replace(cache=1e9)
    profile_of(pair).comparison(True).add(-5.0)  # so that these go unread, and verify several rows, whatever they cost
    kinds = Counter()
    for prompt, want in zip(PROMPTS[:4], plain(), strict=False):
        cache = make_prompt_cache(pair)
        *_, last = responses = list(stream_generate(pair, prompt, 64, prompt_cache=cache))
        assert [t for r in responses for t in r.tokens] == want
        assert {c.offset for c in cache} == {len(prompt) + 64}
        kinds += last.statistics.kinds
    assert kinds["tie"] > 0


def test_bounds_follow_the_rounding():
    """Coarser rows need wider margins; and what only the cache rounds is less than what all of it does."""
    fine, coarse = (measure_parity(rounding_pair(bits)) for bits in (12, BITS))
    assert 0 < fine.rows < coarse.rows
    assert 0 < coarse.cache <= coarse.rows
    exact = measure_parity(without_end(small_pair()))
    assert exact.rows < fine.rows / 10


def test_sampling_without_a_seed_needs_no_guard():
    pair = rounding_pair()
    profile_of(pair).parity = profile_of(pair).parity._replace(rows=1e9, cache=1e9)
    *_, last = stream_generate(pair, PROMPTS[0], 40, tree_budget=12, sampler=make_sampler(0.8))
    assert last.statistics.kinds["tie"] == 0


@pytest.mark.parametrize("options", [{}, {"top_p": 1.0, "temp": 0.3}, {"top_k": 9}, {"temp": 0.0}])
def test_a_seeds_choice_is_close_exactly_where_rounding_can_turn_it(options):
    """Whether one draw says it, or a second one of logits that are moved against the first."""
    bound = 0.4
    logits = mx.random.normal((40, 30), key=mx.random.key(3))
    tree = DraftTree.chain(np.arange(40), np.zeros(39))
    sampler = make_sampler(**{"temp": 1.3, "seed": 5} | options)
    choices = choose_tokens(logits, tree, 7, [1], sampler, bound=bound)
    assert 3 < int(choices.close.sum()) < 37
    assert choices.token_ids.tolist() == choose_tokens(logits, tree, 7, [1], sampler).token_ids.tolist()
    lowered = mx.put_along_axis(mx.zeros_like(logits), choices.token_ids[:, None], mx.array(-bound), axis=-1)
    turned = choose_tokens(logits + lowered, tree, 7, [1], sampler).token_ids != choices.token_ids
    assert bool(mx.all(turned == choices.close)) or options.get("top_k")  # its edge has two sides
    assert not bool(mx.any(turned & ~choices.close))


def test_unknown_mode_is_refused():
    with pytest.raises(OptionError, match="exact, rows, off"):
        our_tokens(small_pair(), PROMPTS[0], 4, parity="sometimes")

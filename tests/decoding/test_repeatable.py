"""What rounding must not decide above plain greedy decoding: penalised choices, and the draws of a seed."""

from functools import cache

import mlx.core as mx
import pytest
from mlx_lm.sample_utils import make_logits_processors

from mlx_ddtree import make_sampler

from ..helpers import small_pair
from .rounding import round_blocks
from .test_lossless import PROMPT, our_tokens, without_end

pytestmark = pytest.mark.usefixtures("thorough_rounding")

PROMPTS = [[5, 9 + 3 * i, 23, 41 - i, 12, 7 + i] for i in range(8)]


@cache
def rounding_pair(bits=6):
    """A pair whose forwards of several tokens round coarsely, as 16-bit kernels do."""
    pair = without_end(small_pair())
    round_blocks(pair.target, bits)
    return pair


def eightfold(token_ids, logits):
    return logits * 8


PROCESSORS = {
    "a penalty below 1": make_logits_processors(repetition_penalty=0.05),
    "a penalty above 1": make_logits_processors(repetition_penalty=1.7),
    "eight times the logits": [eightfold],
}


@pytest.mark.parametrize("processors", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_near_ties_are_judged_before_processors_stretch_them(processors):
    """The bound is measured on the model's logits, so it is what processors make of it that counts."""
    pair = rounding_pair()
    for prompt in PROMPTS:
        want = our_tokens(pair, prompt, 48, method="ar", logits_processors=processors)
        assert our_tokens(pair, prompt, 48, tree_budget=12, logits_processors=processors) == want


ALIKE = [pytest.param(filters, marks=pytest.mark.slow) for filters in ({"top_k": 5}, {"min_p": 0.1})]
FILTERS = [{}, {"top_p": 0.9}, *ALIKE, {"xtc_probability": 0.5, "xtc_threshold": 0.05}]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_a_seed_gives_the_same_text_though_kernels_round(filters):
    """By every method, also where two tokens' noisy scores, or a filter's edge, are within rounding."""
    pair = rounding_pair()
    for seed in range(8):
        sampler = make_sampler(0.8, seed=seed, **filters)
        want = our_tokens(pair, PROMPT, 48, sampler=sampler, method="ar")
        assert our_tokens(pair, PROMPT, 48, sampler=sampler, tree_budget=12) == want


def test_rounding_would_change_the_text_of_some_seed():
    """Or the test above would show nothing."""
    pair = rounding_pair()
    texts = []
    for how in ({"method": "ar"}, {"tree_budget": 12, "parity": "off"}):
        samplers = [make_sampler(0.8, seed=seed) for seed in range(12)]
        texts.append([our_tokens(pair, PROMPT, 48, sampler=sampler, **how) for sampler in samplers])
    assert texts[0] != texts[1]


@pytest.mark.parametrize("temp", [1e-9, 1e-39])
def test_a_tiny_temperature_is_greedy(temp):
    pair = rounding_pair()
    assert our_tokens(pair, PROMPT, 24, sampler=make_sampler(temp)) == our_tokens(pair, PROMPT, 24)


def test_a_foreign_sampler_gets_a_call_for_every_node():
    """It may draw one coin a call, as mlx-lm's XTC does; nodes of one tree must not share it."""
    pair = rounding_pair()
    rows = []

    def sampler(log_probs):
        rows.append(log_probs.shape[0])
        return mx.argmax(log_probs, axis=-1)

    our_tokens(pair, PROMPT, 24, sampler=sampler, tree_budget=12)
    assert set(rows) == {1}

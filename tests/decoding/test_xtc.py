"""XTC under a tree: every position has a coin of its own, and the joint distribution is mlx-lm's."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import make_sampler as mlx_lm_sampler

from mlx_ddtree import make_sampler

from ..helpers import small_pair
from .test_lossless import PREFIX, VOCAB, fits, our_tokens, without_end

PROBABILITY = 0.5
THRESHOLD = 0.05


def cut(p):
    """Probabilities (..., V) after the top choices are excluded."""
    above = np.where(p > THRESHOLD, p, np.inf).min(axis=-1, keepdims=True)
    left = np.where(p > above, 0.0, p)
    return left / left.sum(axis=-1, keepdims=True)


def joint_distribution(pair):
    """(VOCAB ** 3,) probabilities of the three tokens after PREFIX, each position with a coin of its own."""
    result = np.zeros((VOCAB, VOCAB, VOCAB))
    for a in range(VOCAB):
        for b in range(VOCAB):
            logits = pair.target.model(mx.array([[*PREFIX, a, b]]))[0, len(PREFIX) - 1 :]
            p = np.array(mx.softmax(logits, axis=-1), np.float64)
            p = PROBABILITY * cut(p) + (1 - PROBABILITY) * p
            result[a, b] = p[0, a] * p[1, b] * p[2]
    return result.ravel() / result.sum()


@pytest.mark.parametrize(("sampler", "runs"), [("ours", 700), pytest.param("mlx-lm's", 4000, marks=pytest.mark.slow)])
def test_the_joint_distribution_is_that_of_independent_coins(sampler, runs):
    pair = without_end(small_pair(vocab=VOCAB))
    options = {"xtc_probability": PROBABILITY, "xtc_threshold": THRESHOLD}
    counts = np.zeros(VOCAB**3)
    for seed in range(runs):
        mx.random.seed(seed + 1000)
        draw = make_sampler(1.0, seed=seed, **options) if sampler == "ours" else mlx_lm_sampler(1.0, **options)
        a, b, c = our_tokens(pair, PREFIX, 3, block_size=4, parity="off", sampler=draw)
        counts[(a * VOCAB + b) * VOCAB + c] += 1
    assert fits(counts, joint_distribution(pair))


def test_what_a_node_says_depends_on_its_own_position_only():
    """Coins and noise of all depths are there at once, and every row takes those that a row alone would take."""
    depths = [0, 1, 1, 2, 3, 2]
    log_probs = mx.log(mx.softmax(mx.random.normal((len(depths), 12), key=mx.random.key(0)), axis=-1))
    for seed in range(20):
        sampler = make_sampler(1.0, seed=seed, xtc_probability=PROBABILITY, xtc_threshold=THRESHOLD)
        alone = [sampler.choose(log_probs[i : i + 1], [0], 40 + depth).item() for i, depth in enumerate(depths)]
        assert sampler.choose(log_probs, depths, 40).tolist() == alone

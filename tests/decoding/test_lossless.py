"""The promise: the same tokens as mlx_lm.generate at temperature 0, the target's distribution above."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_logits_processors
from mlx_lm.sample_utils import make_sampler as mlx_lm_sampler

from mlx_ddtree import make_sampler, stream_generate

from ..helpers import small_pair

PROMPT = [5, 9, 23, 41, 12, 7]
METHODS = ("ar", "dflash", "ddtree")


def stock_tokens(pair, prompt, count, **options):
    """What mlx_lm itself generates."""
    return [token for token, _ in generate_step(mx.array(prompt), pair.target.model, max_tokens=count, **options)]


def our_tokens(pair, prompt, count, **options):
    return [t for r in stream_generate(pair, prompt, count, **options) for t in r.tokens]


def without_end(pair):
    """Random models meet their end token by chance; these tests want the full length."""
    pair.tokenizer.eos_token_ids.clear()
    return pair


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [None, 4])
def test_greedy_tokens_equal_mlx_lm(bits, method):
    """test_families.py has the other families."""
    pair = without_end(small_pair(bits=bits))
    for prompt in (PROMPT, [11], PROMPT * 9):
        assert our_tokens(pair, prompt, 64, method=method) == stock_tokens(pair, prompt, 64)


@pytest.mark.parametrize("budget", [0, 1, 2, 7, 40, 200])
@pytest.mark.parametrize("block_size", [2, 5, 8])
def test_no_tree_changes_the_tokens(budget, block_size):
    pair = without_end(small_pair())
    ours = our_tokens(pair, PROMPT, 48, tree_budget=budget, block_size=block_size)
    assert ours == stock_tokens(pair, PROMPT, 48)


@pytest.mark.parametrize("step", [1, 2, 3, 64])
def test_prefill_chunks_change_nothing(step):
    pair = without_end(small_pair())
    ours = our_tokens(pair, PROMPT * 3, 32, prefill_step_size=step)
    assert ours == stock_tokens(pair, PROMPT * 3, 32, prefill_step_size=step)


def test_a_chain_shaped_tree_is_the_linear_block():
    """With one candidate per position a tree is the block: same rounds, same tokens, same logits."""
    pair = without_end(small_pair())
    linear = list(stream_generate(pair, PROMPT, 40, method="dflash", block_size=2))
    tree = list(stream_generate(pair, PROMPT, 40, method="ddtree", block_size=2, tree_budget=1))
    assert [r.tokens for r in linear] == [r.tokens for r in tree]
    for a, b in zip(linear, tree, strict=True):
        np.testing.assert_array_equal(np.array(a.logprobs), np.array(b.logprobs))


@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 5}])
def test_a_seed_gives_the_same_sample_by_every_method_and_budget(options):
    pair = without_end(small_pair())
    runs = [
        our_tokens(pair, PROMPT, 48, sampler=make_sampler(0.8, seed=3, **options), **how)
        for how in ({"method": "ar"}, {"method": "dflash"}, {"tree_budget": 3}, {"tree_budget": 30})
    ]
    assert all(run == runs[0] for run in runs)
    assert runs[0] != our_tokens(pair, PROMPT, 48, sampler=make_sampler(0.8, seed=4, **options))


@pytest.mark.parametrize("method", METHODS)
def test_processors_see_each_nodes_own_path(method):
    processors = make_logits_processors(repetition_penalty=1.7, repetition_context_size=8)
    pair = without_end(small_pair())
    ours = our_tokens(pair, PROMPT, 48, method=method, logits_processors=processors)
    assert ours == stock_tokens(pair, PROMPT, 48, logits_processors=processors)
    assert ours != stock_tokens(pair, PROMPT, 48)


def chi_square(counts: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom, rare cells pooled."""
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    return float(((observed - wanted)[keep] ** 2 / wanted[keep]).sum()), int(keep.sum()) - 1


VOCAB = 8
PREFIX = [5, 2, 1]


def joint_distribution(pair, temperature: float) -> np.ndarray:
    """(VOCAB ** 3,) probabilities of the three tokens after PREFIX."""
    result = np.zeros((VOCAB, VOCAB, VOCAB))
    for a in range(VOCAB):
        for b in range(VOCAB):
            logits = pair.target.model(mx.array([[*PREFIX, a, b]]))[0, len(PREFIX) - 1 :]
            p = np.array(mx.softmax(logits / temperature, axis=-1), np.float64)
            result[a, b] = p[0, a] * p[1, b] * p[2]
    return result.ravel() / result.sum()


def fits(counts: np.ndarray, probabilities: np.ndarray) -> bool:
    """Chi-square within four standard deviations: about one false alarm in 30,000."""
    statistic, freedom = chi_square(counts, probabilities * counts.sum())
    return statistic < freedom + 4 * np.sqrt(2 * freedom)


MANY = [(method, *options) for method in ("dflash", "ddtree") for options in (("ours", 12000), ("mlx-lm's", 6000))]


@pytest.mark.parametrize(
    ("method", "sampler", "runs"),
    [("ddtree", "ours", 800), *(pytest.param(*options, marks=pytest.mark.slow) for options in MANY)],
)
def test_distribution_at_temperature_one(method, sampler, runs):
    """Over many seeds, the joint distribution of the first three tokens is the target's."""
    pair, budget = without_end(small_pair(vocab=VOCAB)), 6 if method == "ddtree" else "auto"
    counts = np.zeros(VOCAB**3)
    for seed in range(runs):
        mx.random.seed(seed + 1000)
        draw = make_sampler(1.0, seed=seed) if sampler == "ours" else mlx_lm_sampler(temp=1.0)
        a, b, c = our_tokens(pair, PREFIX, 3, method=method, block_size=4, tree_budget=budget, sampler=draw)
        counts[(a * VOCAB + b) * VOCAB + c] += 1
    assert fits(counts, joint_distribution(pair, 1.0))
    assert not fits(counts, joint_distribution(pair, 0.8))  # the test can tell a wrong distribution

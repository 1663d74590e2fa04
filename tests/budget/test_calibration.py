"""Corrections start from the prior, end at the true rates, and leave rows that a tree can be grown from."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.calibration import (
    AGREES,
    BINS,
    DISAGREES,
    EDGES,
    HIGHEST,
    PRIOR,
    UNASKED,
    DraftCalibration,
    RecallCalibration,
    Trust,
)

LENGTH = 4


@st.composite
def drafted(draw):
    """(L, K) log-probabilities, descending, of sums up to 1; impossible candidates too."""
    length, k = draw(st.integers(1, LENGTH)), draw(st.integers(1, 6))
    weights = [draw(st.lists(st.integers(0, 30), min_size=k + 1, max_size=k + 1)) for _ in range(length)]
    weights = np.array(weights, float) + np.eye(k + 1)[-1] * 1e-3
    probabilities = -np.sort(-(weights / weights.sum(-1, keepdims=True))[:, :-1], axis=-1)
    return np.log(probabilities, out=np.full_like(probabilities, -np.inf), where=probabilities > 0)


def play(calibration, log_probs, off_spine, ranks, rounds=2000):
    """Rounds that reach every depth; the targets' ranks take turns."""
    length = len(log_probs)
    for i in range(rounds):
        calibration.update(log_probs, range(length), [off_spine] * length, [ranks[i % len(ranks)]] * length)


@given(drafted())
def test_unseen_drafts_are_believed_on_the_spine_and_discounted_off_it(log_probs):
    """Up to the cap on what a row may promise."""
    spine, off_spine = DraftCalibration(LENGTH).apply(log_probs)
    cap = np.minimum(HIGHEST / np.maximum(np.exp(log_probs).sum(-1, keepdims=True), 1e-9), 1)
    np.testing.assert_allclose(np.exp(spine), np.exp(log_probs) * cap, atol=1e-12)
    np.testing.assert_allclose(np.exp(off_spine), np.exp(log_probs) * PRIOR[1], atol=1e-12)


@given(drafted(), st.integers(0, 2**32 - 1))
def test_corrected_rows_descend_and_promise_at_most_one_token(log_probs, seed):
    """Whatever was counted; candidates keep their order and the impossible stays so."""
    rng, calibration = np.random.default_rng(seed), DraftCalibration(LENGTH)
    calibration.hits = rng.exponential(30, calibration.hits.shape) * rng.integers(0, 2, calibration.hits.shape)
    calibration.expected = rng.exponential(30, calibration.hits.shape) * rng.integers(0, 2, calibration.hits.shape)
    for rows in calibration.apply(log_probs):
        assert rows.shape == log_probs.shape
        assert (rows[:, 1:] <= rows[:, :-1]).all()
        assert (np.exp(rows).sum(-1) <= HIGHEST + 1e-9).all()
        assert (np.isneginf(rows) == np.isneginf(log_probs)).all()


@pytest.mark.parametrize(
    ("ranks", "rates"), [([0, 0, 0, 0, 0, 0, 1, 1, 9, 9], (0.6, 0.2)), ([0, 0, 1, 9, 9, 9, 9, 9, 9, 9], (0.2, 0.1))]
)
@pytest.mark.parametrize("off_spine", [False, True])
def test_many_outcomes_lead_to_the_true_rates(off_spine, ranks, rates):
    """On or off the spine, from a drafter that is too sure of its first candidate; old texts are forgotten."""
    log_probs = np.log([[0.9, 0.06]] * LENGTH)
    calibration = DraftCalibration(LENGTH)
    play(calibration, log_probs, off_spine, [9])  # an earlier text, where it was never right
    play(calibration, log_probs, off_spine, ranks)
    corrected = np.exp(calibration.apply(log_probs)[off_spine])
    np.testing.assert_allclose(corrected, [rates] * LENGTH, atol=0.04)
    untouched = np.exp(calibration.apply(log_probs)[not off_spine])
    np.testing.assert_allclose(untouched, np.exp(log_probs) * PRIOR[int(not off_spine)], rtol=1e-6)


def test_a_depth_without_outcomes_leans_on_the_others():
    """Bin by bin; the prior is only for what was seen nowhere."""
    log_probs = np.log([[0.9, 0.06]] * LENGTH)
    calibration = DraftCalibration(LENGTH)
    play(calibration, log_probs[:1], False, [0, 9])
    deepest = np.exp(calibration.apply(log_probs)[0][-1])
    np.testing.assert_allclose(deepest, [0.5, 0.0], atol=0.02)


def test_an_outcome_is_counted_where_it_happened():
    """A hit in its candidate's bin, all candidates of the node as expected, none of them for a miss."""
    calibration = DraftCalibration(LENGTH)
    log_probs = np.log([[0.5, 0.3], [0.6, 0.01], [0.7, 0.1]])
    calibration.update(log_probs, [0, 1, 2], [False, True, True], [0, 1, 2])
    assert calibration.hits.sum(axis=-1).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    np.testing.assert_allclose(calibration.expected.sum(axis=-1), [[0.8, 0, 0, 0], [0, 0.61, 0.8, 0]])
    np.testing.assert_allclose(calibration.expected[1, 1][calibration.hits[1, 1] > 0], 0.01)


def test_draft_counts_survive_a_file():
    log_probs = np.log([[0.9, 0.06]] * LENGTH)
    calibration, loaded = DraftCalibration(LENGTH), DraftCalibration(LENGTH)
    play(calibration, log_probs, True, [0, 1, 9], rounds=50)
    loaded.load(json.loads(json.dumps(calibration.as_dict())))
    np.testing.assert_allclose(loaded.apply(log_probs), calibration.apply(log_probs), atol=1e-3)
    assert not np.allclose(loaded.apply(log_probs), DraftCalibration(LENGTH).apply(log_probs), atol=0.1)


@pytest.mark.parametrize(
    "saved", [{}, {"hits": [[1.0]], "expected": [[1.0]]}, {"hits": np.ones((2, LENGTH, BINS)).tolist()}]
)
def test_draft_counts_of_another_shape_are_ignored(saved):
    calibration = DraftCalibration(LENGTH)
    calibration.load(saved)
    assert calibration.hits.shape == (2, LENGTH, BINS)
    assert not calibration.hits.any()


def chance_of(recalls, match, chance, relation):
    """The corrected chance of one candidate alone."""
    return recalls.apply([match], [chance], [relation])[0]


def test_cells_of_a_recalled_token_begin_at_their_bounds():
    recalls = RecallCalibration()
    for match in range(1, 40):
        row, _, relation = recalls.cell(match, 0.5, DISAGREES)
        assert recalls.MATCHES[row] <= match < [*recalls.MATCHES, 99][row + 1]
        assert relation == DISAGREES
    for place, edge in enumerate(np.exp(EDGES)):
        assert recalls.cell(1, edge * 0.999, UNASKED)[1] == place
        assert recalls.cell(1, edge * 1.001, UNASKED)[1] == place + 1


def test_unseen_recalled_tokens_are_believed_by_their_match():
    """The longer the better, and less where the drafter says another token."""
    recalls = RecallCalibration()
    for relation in (AGREES, DISAGREES, UNASKED):
        chances = [chance_of(recalls, match, 0.6, relation) for match in recalls.MATCHES]
        assert chances == sorted(chances) and chances[0] < chances[-1]
    assert chance_of(recalls, 4, 0.6, DISAGREES) < chance_of(recalls, 4, 0.6, AGREES) / 2


def test_recalled_tokens_approach_their_true_hit_rate():
    """In their own cell, forgetting older texts; other matches keep the prior."""
    recalls = RecallCalibration()
    prior = chance_of(recalls, 2, 0.5, AGREES)
    for right in ([False] * 2000, [True, True, True, False] * 500):
        for outcome in right:
            recalls.update([(recalls.cell(5, 0.5, AGREES), 0.5, outcome)])
    assert chance_of(recalls, 5, 0.5, AGREES) == pytest.approx(0.75, abs=0.03)
    assert chance_of(recalls, 2, 0.5, AGREES) == prior


@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 0.5), st.integers(0, 2), st.booleans()), max_size=8),
    st.floats(0.5, 4.0),
)
def test_no_place_promises_more_than_one_token(candidates, trust):
    """A probability of 1 would leave its siblings nothing."""
    recalls = RecallCalibration()
    matches, chances, relations, rights = [[candidate[i] for candidate in candidates] for i in range(4)]
    cells = [recalls.cell(*candidate[:3]) for candidate in candidates]
    for _ in range(50):
        recalls.update(list(zip(cells, chances, rights, strict=True)))
    corrected = recalls.apply(matches, chances, relations, trust)
    assert sum(corrected) <= HIGHEST + 1e-9
    assert all(chance > 0 for chance in corrected)


def test_counts_of_recalls_survive_a_file_and_other_shapes_are_ignored():
    recalls, loaded = RecallCalibration(), RecallCalibration()
    recalls.update([(recalls.cell(9, 0.9, AGREES), 0.9, False)] * 40)
    loaded.load(json.loads(json.dumps(recalls.as_dict())))
    loaded.load({"hits": [1.0], "expected": [1.0]})
    loaded.load({})
    assert chance_of(loaded, 9, 0.9, AGREES) == pytest.approx(chance_of(recalls, 9, 0.9, AGREES), abs=1e-3)
    assert chance_of(loaded, 9, 0.9, AGREES) < 0.1


def test_trust_follows_a_text_within_a_few_rounds():
    """Down when drafts fail that hold elsewhere, up again when they hold; with nothing seen it is 1."""
    trust = Trust()
    assert trust.factor == 1.0
    for _ in range(8):
        trust.update(0.9, 0.0)
    assert trust.factor < 0.2
    for _ in range(20):
        trust.update(3.6, 4.0)
    assert trust.factor > 0.95


@given(drafted(), st.floats(0.01, 1.0))
def test_trust_scales_the_chances_of_a_text(log_probs, trust):
    """Of both tables alike."""
    rows = log_probs + np.log(0.5)  # below the cap
    calibration = DraftCalibration(LENGTH)
    for plain, scaled in zip(calibration.apply(rows), calibration.apply(rows, trust), strict=True):
        np.testing.assert_allclose(np.exp(scaled), np.exp(plain) * trust, atol=1e-9)


@given(st.integers(1, LENGTH), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_pairs_are_corrected_row_by_row(length, k, seed):
    """Each parent's row as a block drafter's row at that depth, in the order in which its candidates stand."""
    rng, calibration = np.random.default_rng(seed), DraftCalibration(LENGTH)
    calibration.hits = rng.exponential(30, calibration.hits.shape)
    calibration.expected = rng.exponential(30, calibration.hits.shape)
    log_probs = np.log(rng.dirichlet(np.ones(k + 1), (length, k))[..., :k])
    order = np.argsort(-log_probs, axis=-1)
    for side, corrected in enumerate(calibration.apply(log_probs, trust=0.8)):
        assert corrected.shape == log_probs.shape
        for r in range(k):
            ranked = np.take_along_axis(log_probs[:, r], order[:, r], axis=-1)
            expected = calibration.apply(ranked, trust=0.8)[side]
            np.testing.assert_allclose(np.take_along_axis(corrected[:, r], order[:, r], axis=-1), expected)

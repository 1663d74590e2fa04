"""A drafter whose file is read one off is found out on the target's own text, and read rightly from then on."""

from dataclasses import replace

import numpy as np
import pytest

from mlx_ddtree import load
from mlx_ddtree.tuning.reading import Reading, ReadingCheck, best_reading, check_reading, use_reading

from ..helpers import small_pair


def test_a_planted_slip_is_found_and_mended(caplog):
    """The embedded pair, read as if row 0 predicted: every token lands one depth too deep."""
    pair = load()
    taps = pair.target.taps
    pair.drafter.config = replace(pair.drafter.config, logits_start=0)
    check = check_reading(pair)
    assert (check.configured, check.used) == (Reading(0, 0), Reading(1, 0))
    assert check.accepted[Reading(1, 0)] > 4 * check.accepted[Reading(0, 0)]
    use_reading(pair, check)
    assert pair.drafter.config.logits_start == 1 and pair.target.taps == taps
    assert "row 1, taps +0, not as its file says (row 0, taps +0)" in caplog.text
    assert ReadingCheck.from_dict(check.as_dict()).used == check.used


def test_shifted_taps_are_tapped_from_then_on():
    pair = small_pair()
    check = ReadingCheck(Reading(1, 0), Reading(1, -1), {Reading(1, 0): 1.0, Reading(1, -1): 2.0})
    pair.target.taps = (1, 2)
    use_reading(pair, check)
    assert pair.target.taps == pair.drafter.config.target_layer_ids == (0, 1)


def test_a_drafter_that_knows_nothing_keeps_its_reading():
    """Random weights: no reading is better than another, however few places a draft gets right by chance."""
    pair = small_pair()
    check = check_reading(pair)
    assert check.used == check.configured == Reading(1, 0) and "as its file says" in check.line
    assert pair.target.taps == (0, 1, 2)


@pytest.mark.parametrize(("gain", "used"), [(0.0, (1, 0)), (0.1, (1, 0)), (1.0, (1, -1)), (-1.0, (1, 0))], ids=str)
def test_another_reading_must_be_clearly_better(gain, used):
    """By far more than its places scatter; paired, since easy places are easy for all readings."""
    own = np.tile([0.0, 2.0, 7.0, 3.0], 6)
    noise = np.tile([0.0, 0.5, -0.5], 8)
    counts = {Reading(1, 0): own, Reading(0, 0): own * 0, Reading(1, -1): own + gain + noise}
    assert best_reading(Reading(1, 0), counts) == Reading(*used)


@pytest.mark.parametrize(
    "record",
    [
        {}, {"configured": [1, 0], "used": [2, 0], "accepted": []}, {"configured": [1, 0], "used": [1, 0], "accepted": 3},
        {"configured": [1, 0], "used": [1, 0], "accepted": [[1, 0, "x"]]}, [],
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused(record):
    with pytest.raises((LookupError, TypeError, ValueError)):
        ReadingCheck.from_dict(record)

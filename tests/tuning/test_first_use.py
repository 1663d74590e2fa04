"""A first use measures for seconds, not minutes, whatever a forward costs; what it leaves is guessed and measured later."""

import json

import pytest

from mlx_ddtree import stream_generate
from mlx_ddtree.budget.cost import ROWS
from mlx_ddtree.tuning import choose, costs, measure, rounding, stopwatch, store
from mlx_ddtree.tuning.measure import measure_more, profile_of, whole_profile_of
from mlx_ddtree.tuning.reading import LENGTH

from ..conftest import ROUNDING
from ..helpers import small_pair
from ..metal_host import missing_compiler
from ..simulated_mac import SlowModel, mac

__all__ = ["mac"]
MOST_FORWARDS = 150
PROMPT = [3, 14, 15, 9, 26, 5, 35]


@pytest.fixture(autouse=True)
def as_for_users(monkeypatch):
    """What the tests' hurry leaves out."""
    for name, value in ROUNDING.items():
        monkeypatch.setattr(rounding, name, value)
    for name, value in (("WARM_UPS", 2), ("LEAST", 3), ("MOST", 9)):
        monkeypatch.setattr(stopwatch, name, value)
    monkeypatch.setattr(costs, "ROWS", ROWS)
    monkeypatch.setattr(costs, "SECOND_LOOKS", 3)


def said(pair, **how):
    return [t for r in stream_generate(pair, PROMPT, 24, **how) for t in r.tokens]


def test_a_slow_model_is_measured_in_150_forwards(monkeypatch):
    pair = small_pair()
    slow = SlowModel(pair, 0.1, monkeypatch)
    profile = whole_profile_of(pair)
    assert profile.complete and profile.cost.guessed == [] and 30 < slow.forwards <= MOST_FORWARDS
    again = slow.forwards
    whole_profile_of(pair)
    assert slow.forwards == again


@pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
def test_kernels_are_chosen_within_the_same_150_forwards(monkeypatch, mac):
    monkeypatch.setattr(choose, "CONTEXT", 64)
    pair = small_pair(bits=4)
    slow = SlowModel(pair, 0.1, monkeypatch)
    profile = whole_profile_of(pair)
    assert profile.complete and profile.findings and mac.launched
    assert slow.forwards <= MOST_FORWARDS + LENGTH  # how the drafter was read is checked on a text of its own


@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_a_text_waits_for_seconds_only(monkeypatch, seconds):
    """Of the slowest models no more is measured than nothing can begin without."""
    monkeypatch.setattr(measure, "AT_FIRST", 8.0)
    want = said(small_pair(), method="ar")
    pair = small_pair()
    slow = SlowModel(pair, seconds, monkeypatch)
    profile = profile_of(pair)
    assert slow.now < max(8.0 + 5 * seconds, 16 * seconds)
    assert not profile.complete and 0 < profile.measured < 1
    assert profile.cost.guessed and profile.cost.rows == list(ROWS)
    assert said(pair) == want


def test_what_one_use_leaves_the_next_ones_measure(monkeypatch, tmp_path):
    path = tmp_path / "0123456789abcdef0123.json"
    monkeypatch.setattr(measure, "profile_path", lambda pair, mode: path)
    monkeypatch.setattr(measure, "AT_FIRST", 8.0)
    shares, forwards = [], 0
    for _ in range(12):
        pair = small_pair()
        slow = SlowModel(pair, 0.5, monkeypatch)
        shares.append(profile_of(pair).measured)
        forwards += slow.forwards
        if pair.profile.complete:
            break
    assert shares == sorted(shares) and shares[-1] == 1
    assert forwards < 2 * MOST_FORWARDS  # fillings of caches and plain steps, once a use
    assert [file.name for file in tmp_path.glob("*.json")] == [path.name]
    assert store.load(path, 8).complete and store.load(path, 8).numbers == {}


def test_measuring_goes_on_in_the_same_process(monkeypatch):
    """As in a server that nobody asks; costs change where a planner holds them, and what was learned stays."""
    pair = small_pair()
    SlowModel(pair, 0.3, monkeypatch)
    measure_more(pair, 3.0)
    profile, cost = pair.profile, pair.profile.cost
    profile.survival(True).trials[:] = [3.0] * len(profile.survival(True).trials)
    for _ in range(60):
        if profile.complete:
            break
        measure_more(pair, 1.0)
    assert pair.profile is profile and profile.cost is cost and profile.complete
    assert cost.guessed == [] and min(profile.survival(True).trials) == 3


def test_a_round_of_a_guessed_size_says_what_it_takes(monkeypatch):
    pair = small_pair()
    SlowModel(pair, 2.0, monkeypatch)
    measure_more(pair, 0.0)
    cost = pair.profile.cost
    size = cost.guessed[0]
    place = cost.rows.index(size)
    guess = cost.verification(64)
    cost.saw_verification(size, 64, 3 * guess[place])
    assert cost.verification(64)[place] == pytest.approx(3 * guess[place])
    larger = cost.rows.index(cost.guessed[-1])
    assert cost.verification(64)[larger] == pytest.approx(3 * guess[larger])
    cost.saw_verification(size, 64, 3 * guess[place])  # now an entry like others
    assert size not in cost.guessed and cost.verification(64)[place] == pytest.approx(3 * guess[place])


def test_a_read_only_folder_and_a_damaged_profile_are_survived(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "0123456789abcdef0123.json", tmp_path / "0123456789abcdef0123.json"):
        if path.parent == tmp_path:
            path.write_text('{"version": 7, "cost": ')
            path.with_suffix(".part.json").write_text(json.dumps({"tree 1 behind 64": "soon"}))
        monkeypatch.setattr(measure, "profile_path", lambda pair, mode, path=path: path)
        assert profile_of(small_pair()).complete


def test_a_stall_is_met_once():
    """A driver that takes minutes for a call is not asked again, and does not win."""
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "now", lambda: now[0])
        calls = []

        def stalls():
            calls.append(1)
            now[0] += 105.0

        def quick():
            now[0] += 0.001

        seconds = stopwatch.fastest({"MLX": quick, "kernel": stalls})
        assert len(calls) == 1 and seconds["kernel"] == 105.0 and seconds["MLX"] == pytest.approx(0.001)
        assert stopwatch.fastest({"MLX": stalls, "kernel": quick})["kernel"] == float("inf")

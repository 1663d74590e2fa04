"""Costs are measured so that a busy moment does not stay in the table."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlx_ddtree.files.lock import in_turn
from mlx_ddtree.tuning import costs, measure, stopwatch, store
from mlx_ddtree.tuning.measure import profile_of
from mlx_ddtree.tuning.stopwatch import fastest
from mlx_ddtree.tuning.timings import Timings

from ..helpers import small_pair


def test_sides_take_turns_and_the_shortest_call_counts(monkeypatch):
    for name, count in (("WARM_UPS", 2), ("LEAST", 3), ("MOST", 9)):
        monkeypatch.setattr(stopwatch, name, count)
    calls = []
    seconds = fastest({name: lambda name=name: calls.append(name) for name in "ab"}, patience=1e9)
    assert calls == list("ab") * (2 + 9)
    assert set(seconds) == {"a", "b"} and min(seconds.values()) >= 0
    calls.clear()
    fastest({"a": lambda: calls.append("a")}, patience=0.0)
    assert len(calls) == 2 + 3


def test_a_disturbed_size_is_timed_again(monkeypatch):
    """As measured once on a busy machine, ms by rows: 1: 47, 4: 169, 8: 488, 9: 160."""
    truth = {1: 0.047, 4: 0.1, 8: 0.15, 9: 0.16}
    first = {1: 0.047, 4: 0.169, 8: 0.488, 9: 0.16}
    monkeypatch.setattr(costs, "ROWS", tuple(truth))
    monkeypatch.setattr(costs, "SECOND_LOOKS", 3)
    known = Timings(None, None, {f"tree {rows} behind 64": seconds for rows, seconds in first.items()})
    measuring = costs.Costs(small_pair(), known)
    monkeypatch.setattr(costs, "verify_once", lambda state, rows, chain=False: rows)
    monkeypatch.setattr(costs, "timed", lambda rows: truth[rows])
    measuring._look_again()
    assert measuring._trees() == {1: 0.047, 4: 0.169, 8: 0.15, 9: 0.16}


def test_one_disturbed_size_does_not_end_the_measuring():
    slow = costs.LONGEST_COPY
    assert not costs.cannot_win([]) and not costs.cannot_win([1.0])
    assert not costs.cannot_win([1.0, 2.0, slow])
    assert costs.cannot_win([1.0, slow, slow])


def test_measuring_says_so_on_stderr_also_without_a_terminal(capsys):
    profile_of(small_pair())
    captured = capsys.readouterr()
    assert re.match("measuring this pair on this machine, once", captured.err) and captured.out == ""


def test_what_another_process_has_just_measured_is_taken(monkeypatch, tmp_path, capsys):
    """Two that measured at once would time each other."""
    path = tmp_path / "profile.json"
    monkeypatch.setattr(measure, "profile_path", lambda pair, mode: path)
    first = small_pair()
    second = small_pair()
    said = ""
    with ThreadPoolExecutor(1) as pool:
        with in_turn(tmp_path / measure.LOCK, 0, pytest.fail):
            waiting = pool.submit(profile_of, second)
            while "another process is measuring" not in said:
                said += capsys.readouterr().err
                assert not waiting.done()
            profile = measure._further(first, "off", path, None, Timings(None))
            store.save(profile)
        assert waiting.result(60).cost.as_dict() == profile.cost.as_dict()
    said += capsys.readouterr().err
    assert said.count("measuring this pair") == 1


def test_forgetting_removes_profiles_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setenv("MLX_DDTREE_CACHE", str(tmp_path))
    assert store.forget() == 0
    (tmp_path / "0123456789abcdef0123.json").write_text("{}")
    (tmp_path / "0123456789abcdef0123.part.json").write_text("{}")
    (tmp_path / "notes.json").write_text("{}")
    assert store.forget() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.json"]

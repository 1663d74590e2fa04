"""An interrupted measurement goes on where it ended, whatever its file has become."""

import json

import pytest

from mlx_ddtree.tuning import costs, measure
from mlx_ddtree.tuning.measure import profile_of
from mlx_ddtree.tuning.timings import Timings

from ..helpers import small_pair


def interrupted_after(monkeypatch, calls):
    """Let Ctrl-C come with the n-th timing; counts them all."""
    own = costs.timed
    done = []

    def timed(run):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(run)
        return own(run)

    monkeypatch.setattr(costs, "timed", timed)
    return done


@pytest.mark.parametrize("calls", [1, 9])
def test_ctrl_c_keeps_what_was_measured(monkeypatch, tmp_path, calls):
    path = tmp_path / "0123456789abcdef0123.json"
    monkeypatch.setattr(measure, "profile_path", lambda pair, mode: path)
    with monkeypatch.context() as first:
        interrupted_after(first, calls)
        pair = small_pair()
        with pytest.raises(KeyboardInterrupt):
            profile_of(pair)
    assert pair.profile is None
    kept = json.loads(path.with_suffix(".part.json").read_text())
    timed = sum(name.startswith(("tree", "draft", "chain")) for name in kept)
    assert max(calls - 4, 0) <= timed <= calls  # some may have been timed twice
    with monkeypatch.context() as second:
        timed = interrupted_after(second, None)
        profile = profile_of(pair)
    assert profile.complete and not profile.cost.guessed
    names = len(profile.cost.draft) + len(profile.cost.rows)
    assert names - calls <= len(timed) <= names + 2 * len(costs.SOME_ROWS) + 2 + 4  # and second looks
    assert all(profile.cost.draft[int(name.split()[1])] == taken for name, taken in kept.items() if "draft" in name)
    assert [file.name for file in tmp_path.glob("*.json")] == [path.name]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"draft 2": "soon"}', '{"draft 2": -1}', '{"draft 2": NaN}'])
def test_a_damaged_file_is_nothing(tmp_path, text):
    path = tmp_path / "timings.json"
    path.write_text(text)
    timings = Timings(path)
    assert timings.seconds == {}
    assert timings.of("draft 2", lambda: 0.5) == 0.5
    timings.keep()
    assert Timings(path).of("draft 2", pytest.fail) == 0.5
    timings.forget()
    assert not path.exists()


def test_models_without_a_file_keep_nothing():
    timings = Timings(None)
    timings.of("draft 2", lambda: 0.5)
    timings.keep()
    timings.forget()

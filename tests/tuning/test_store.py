"""What was learned survives the process, and no state of the disk stops decoding."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlx_ddtree._home import cache_folder
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.profile import ParityBounds, Profile
from mlx_ddtree.tuning import store
from mlx_ddtree.tuning.store import VERSION, WORTH_SAVING

from ..budget.machines import BLOCKS, cost_table

BLOCK = BLOCKS[-1]


@pytest.fixture
def profile(tmp_path):
    """With something learned in every part, not yet saved."""
    profile = Profile(cost_table(), ParityBounds(0.125, 0.25), BLOCK, tmp_path / "cache" / "pair.json")
    profile.cost.saw_rest(0.1)
    for greedy, rank in ((True, 0), (False, 3)):
        profile.draft_calibration(greedy).update(np.log([[0.6, 0.2]]), [0], [False], [rank])
    profile.comparison(True).add(0.5)
    profile.comparison(True).survival.add(np.array([1.0, 0.5]))
    profile.lookups.update([(profile.lookups.cell(4, 0.6, 2), 0.6, True)])
    return profile


def test_a_saved_profile_is_loaded_whole(profile):
    store.save(profile)
    loaded = store.load(profile.path, BLOCK)
    assert (loaded.cost, loaded.parity, loaded.path) == (profile.cost, profile.parity, profile.path)
    assert loaded.lookups.as_dict() == profile.lookups.as_dict()
    assert loaded.chains["greedy"].advantage == pytest.approx(0.5)
    assert loaded.chains["greedy"].compared == 1
    assert loaded.chains["greedy"].survival.hits == profile.chains["greedy"].survival.hits
    for greedy in (True, False):
        assert loaded.draft_calibration(greedy).as_dict() == profile.draft_calibration(greedy).as_dict()
    assert loaded.draft_calibration(True).hits.any() and not loaded.draft_calibration(False).hits.any()


def test_a_target_alone_has_a_profile_without_drafts(tmp_path):
    """And neither is taken for the other."""
    cost = replace(cost_table(), draft={})
    profile = Profile(cost, ParityBounds(0.125, 0.25), 1, tmp_path / "alone.json")
    Planner(profile, greedy=True)  # asks for the counts of drafts, of which there are none
    store.save(profile)
    assert store.load(tmp_path / "alone.json", 1).cost == cost
    assert store.load(tmp_path / "alone.json", BLOCK) is None


def test_nothing_but_the_profile_is_left_behind(profile):
    """It is written aside and moved, also over an older one."""
    for _ in range(2):
        store.save(profile)
    assert [*profile.path.parent.iterdir()] == [profile.path]


@pytest.mark.parametrize(("rounds", "written"), [(WORTH_SAVING - 1, False), (WORTH_SAVING, True)])
def test_the_end_of_a_text_is_saved_where_it_taught_enough(profile, rounds, written):
    profile.rounds_unsaved = rounds
    store.save_if_worth(profile)
    assert profile.path.exists() is written


def test_a_missing_profile_is_no_news(tmp_path, caplog):
    assert store.load(tmp_path / "none.json", BLOCK) is None
    assert not caplog.records


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace('"parity"', '"party"'),
        lambda text: text.replace('"draft":', '"drift":'),
        lambda text: json.dumps(json.loads(text) | {"drafts": [], "lookups": None}),
        lambda text: json.dumps(json.loads(text) | {"parity": "close"}),
    ],
)
def test_a_damaged_profile_is_measured_again_with_a_warning(profile, caplog, damage):
    store.save(profile)
    profile.path.write_text(damage(profile.path.read_text()))
    assert store.load(profile.path, BLOCK) is None
    assert str(profile.path) in caplog.text


@pytest.mark.parametrize("put", [lambda path: path.write_bytes(b"\xff\xfe\x00"), lambda path: path.mkdir()])
def test_what_is_no_text_is_damage_too(profile, caplog, put):
    profile.path.parent.mkdir()
    put(profile.path)
    assert store.load(profile.path, BLOCK) is None
    assert str(profile.path) in caplog.text


def leaves(value, path=()):
    """The places of all single values of a JSON record."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in inner:
            yield from leaves(item, (*path, key))
    else:
        yield path


def with_value(record, path, value):
    """A copy of the record with another value at one place."""
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    "wrong", ["near", [], {}, True, -1, float("nan"), float("inf"), 1e300, 10**400, [[1.0]]], ids=str
)
def test_any_wrong_inner_value_is_measured_again(profile, wrong):
    """At every place of the file: a number that cannot be one, or something else than a number."""
    profile.kernels = {4: ["verify_qmm"], 0: ["topk_logprobs"]}
    profile.findings = [{"name": "verify_qmm", "error": 1e-6, "agrees": True, "speedup": {4: 1.5}}]
    profile.survival(True).trials[0] += 1
    store.save(profile)
    record = json.loads(profile.path.read_text())
    places = list(leaves(record))
    assert len(places) > 100
    for place in places[:: 1 + len(places) // 400] + places[-5:]:
        if type(wrong) is type(record_at(record, place)) in (str, bool):
            continue  # another name, another answer
        if wrong == -1 and place[:3] == ("chains", "greedy", 0):
            continue  # chains can be worth less than trees
        profile.path.write_text(json.dumps(with_value(record, place, wrong)))
        assert store.load(profile.path, BLOCK) is None, place


def record_at(record, place):
    for key in place:
        record = record[key]
    return record


@pytest.mark.parametrize("bound", [0.0, -1e-3, float("nan"), float("inf"), float("-inf"), None, "0.1", True])
@pytest.mark.parametrize("which", [0, 1])
def test_bounds_that_no_measurement_gives_are_rejected(profile, bound, which):
    """A bound of NaN or below 0 would guard nothing, and answers would change without a word."""
    store.save(profile)
    record = json.loads(profile.path.read_text())
    record["parity"][which] = bound
    profile.path.write_text(json.dumps(record))
    assert store.load(profile.path, BLOCK) is None


def test_deeply_nested_json_is_measured_again(profile):
    store.save(profile)
    profile.path.write_text("[" * 100_000 + "]" * 100_000)
    assert store.load(profile.path, BLOCK) is None


def test_a_profile_of_another_version_is_not_read(profile):
    store.save(profile)
    profile.path.write_text(json.dumps(json.loads(profile.path.read_text()) | {"version": VERSION - 1}))
    assert store.load(profile.path, BLOCK) is None


def test_counts_of_another_block_size_are_dropped_and_costs_kept(profile):
    store.save(profile)
    loaded = store.load(profile.path, BLOCK // 2)
    assert loaded.draft_calibration(True).hits.shape[1] == BLOCK // 2 - 1
    assert not loaded.draft_calibration(True).hits.any()
    assert loaded.cost == profile.cost


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_a_place_that_cannot_be_written_stops_nothing(profile, blocked):
    """A file where the folder should be, or a folder where the file should be."""
    if blocked == "folder":
        profile.path.parent.write_text("in the way")
    else:
        profile.path.mkdir(parents=True)
    store.save(profile)
    assert not profile.path.is_file()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"MLX_DDTREE_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"MLX_DDTREE_CACHE": "~/b"}, "~/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/mlx_ddtree"),
        ({"MLX_DDTREE_CACHE": "", "XDG_CACHE_HOME": ""}, "~/.cache/mlx_ddtree"),
        ({}, "~/.cache/mlx_ddtree"),
    ],
)
def test_the_cache_folder_is_the_users_choice(monkeypatch, environment, folder):
    for name in ("MLX_DDTREE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder).expanduser()

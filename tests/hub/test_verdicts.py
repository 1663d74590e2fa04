"""Unlisted models are tested once: what was found is kept for this config and these versions, and a damaged file costs a test."""

import json

import pytest

from mlx_ddtree import _home
from mlx_ddtree.hub import verdicts
from mlx_ddtree.hub.verdicts import make_known_target
from mlx_ddtree.target import PathTarget, PlainTarget, TreeTarget
from mlx_ddtree.target.make import verdict_of

from ..every_model import every_model, mute_model

CONFIG = {"model_type": "qwen2", "hidden_size": 32}


@pytest.fixture
def tests_made(monkeypatch, tmp_path):
    """Counts the tests; everything is kept in a folder of this test's own."""
    monkeypatch.setenv("MLX_DDTREE_CACHE", str(tmp_path))
    made = []
    real = verdicts.make_target

    def counting(model, verdict=None):
        made.append(verdict is not None)
        return real(model, verdict)

    monkeypatch.setattr(verdicts, "make_target", counting)
    return made


MODELS = {
    "rows": (lambda: every_model("qwen2"), TreeTarget),
    "paths": (lambda: every_model("llama4"), PathTarget),
    "plain": (mute_model, PlainTarget),
}


@pytest.mark.parametrize(("make", "kind"), MODELS.values(), ids=MODELS.keys())
def test_a_model_is_tested_once(tests_made, make, kind):
    first = make_known_target(make(), CONFIG)
    again = make_known_target(make(), CONFIG)
    assert type(first) is type(again) is kind
    assert tests_made == [False, True]
    assert verdict_of(again) == verdict_of(first)
    make_known_target(make(), CONFIG | {"hidden_size": 64})
    assert tests_made == [False, True, False]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": 3}', json.dumps({"x": "y" * 10}), '{"x": {"how": "so", "why": ""}}']
)
def test_a_damaged_file_costs_a_test(tests_made, tmp_path, content):
    file = tmp_path / "models" / "verify_trees.json"
    file.parent.mkdir()
    file.write_text(content)
    make_known_target(every_model("qwen2"), CONFIG)
    make_known_target(every_model("qwen2"), CONFIG)
    assert tests_made == [False, True]


def test_a_folder_that_takes_no_file_is_survived(tests_made, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLX_DDTREE_CACHE", str(tmp_path / "file"))
    assert _home.cache_folder() == tmp_path / "file"
    assert isinstance(make_known_target(every_model("qwen2"), CONFIG), TreeTarget)

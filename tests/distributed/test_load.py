"""load() takes names, paths and None; anything else is a sentence at the call. Alone, it loads on this machine."""

import pytest

import mlx_ddtree
from mlx_ddtree import load
from mlx_ddtree.errors import ConfigError, OptionError
from mlx_ddtree.hub.names import DEMO


def test_paths_are_names():
    pair = load(DEMO / "target", DEMO / "drafter")
    assert pair.notes["target_folder"] == str(DEMO / "target")
    assert pair.drafter is not None and pair.target.shards == 1


def test_a_pipeline_of_one_machine_is_that_machine():
    assert load(pipeline=True, draft=False).target.shards == 1


def test_mlx_lms_name_for_it():
    assert mlx_ddtree.sharded_load is mlx_ddtree.load


def test_errors_of_loading_are_exported():
    """Who catches them needs no import from inside the package."""
    for name in ("ConfigError", "OptionError", "PairError", "RankError", "UnsupportedModelError", "WeightsError"):
        assert name in mlx_ddtree.__all__
        assert issubclass(getattr(mlx_ddtree, name), mlx_ddtree.MlxDdtreeError)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"target": 3}, "target is 3"),
        ({"target": b"x"}, "target is b'x'"),
        ({"draft": 3}, "draft is 3"),
        ({"draft": ["a"]}, "draft is"),
        ({"revision": 3}, "revision is 3"),
        ({"draft_revision": 3}, "draft_revision is 3"),
        ({"revision": "main"}, "embedded pair has no revision"),
        ({"adapter_path": 3}, "adapter_path is 3"),
        ({"kernels": "foo"}, "kernels='foo'"),
        ({"kernels": []}, "kernels="),
        ({"draft_window": "a"}, "draft_window is 'a'"),
        ({"draft_window": 1.5}, "draft_window is 1.5"),
        ({"draft_window": True}, "draft_window is True"),
        ({"draft_window": 0}, "draft window 0"),
    ],
)
def test_what_is_no_option_is_refused_with_its_name(arguments, named):
    with pytest.raises(OptionError) as caught:
        load(**arguments)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("~nobody-here/x", "home folder"),
        (str(DEMO / "target" / "config.json"), "is a file"),
        ("./not/there", "no such folder"),
    ],
)
def test_names_of_nothing(name, reason):
    """Neither is called a target without a drafter."""
    with pytest.raises(ConfigError, match=reason):
        load(name)
    with pytest.raises(ConfigError, match=reason):
        load(None, name)

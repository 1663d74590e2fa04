"""benchmark() in Python: what the program measures, kept in memory."""

import importlib
from xml.etree import ElementTree

import pytest

import mlx_ddtree
from mlx_ddtree import OptionError, PromptError, benchmark, load


@pytest.fixture(scope="module")
def pair():
    return load()


@pytest.fixture(scope="module")
def result(pair):
    return benchmark(pair, ["Write a function that adds two numbers.", ["Hello", "Again"]], 8, methods=["ddtree"])


def test_every_setting_has_its_figures(result):
    assert [cell.setting for cell in result.cells] == ["mlx_lm", "ddtree auto"]
    drafted = result.cells[1]
    assert (drafted.prompts, drafted.identical, drafted.compared) == (2, 3, 3)
    assert drafted.low is not None and drafted.low <= drafted.speedup <= drafted.high


def test_what_it_shows(result):
    svg = result.plot().svg
    assert len([group for group in ElementTree.fromstring(svg).iter() if group.get("data-box")]) == 2
    for shown in (str(result), result._repr_html_(), svg, repr(result)):
        assert "ddtree auto" in shown and "mlx_lm" in shown


@pytest.mark.parametrize("prompts", ["one text", [], [""], [3], [["a", 4]]])
def test_prompts_that_are_none(pair, prompts):
    with pytest.raises(PromptError, match="prompt"):
        benchmark(pair, prompts)


def test_errors_come_before_measuring(pair):
    with pytest.raises(OptionError, match="max_tokens is 0"):
        benchmark(pair, ["a"], 0)
    with pytest.raises(OptionError, match="unknown method"):
        benchmark(pair, ["a"], methods=["eagle"])


def test_the_module_of_the_same_name_does_not_hide_it():
    assert importlib.import_module("mlx_ddtree.benchmark") is mlx_ddtree.benchmark is benchmark

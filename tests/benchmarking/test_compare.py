"""One prompt by every method: the tokens are the same, and what is shown says so."""

import json
from xml.etree import ElementTree

import pytest

from mlx_ddtree import Comparison, compare, generate, load
from mlx_ddtree.benchmarking.compare import MethodResult
from mlx_ddtree.programs.generate import main

MESSAGES = [{"role": "user", "content": "Write a function that adds two numbers."}]


@pytest.fixture(scope="module")
def comparison():
    return compare(load(), MESSAGES, 32)


def test_all_methods_give_the_same_tokens(comparison):
    assert [result.method for result in comparison.results] == ["ar", "dflash", "ddtree"]
    assert all(result.identical for result in comparison.results)
    assert comparison.text == generate(load(), MESSAGES, 32)


def test_above_temperature_0_all_methods_draw_the_same():
    class Watcher:
        heard, done = [], []

        def tell(self, method, response):
            self.heard.append(method)

        def finish(self, method, identical):
            self.done.append((method, identical))

    drawn = compare(load(), MESSAGES, 16, temp=0.9, watcher=Watcher())
    assert all(result.identical for result in drawn.results)
    assert list(dict.fromkeys(Watcher.heard)) == ["ar", "dflash", "ddtree"]
    assert Watcher.done == [("ar", True), ("dflash", True), ("ddtree", True)]


def test_what_it_shows(comparison):
    plot = comparison.plot()
    groups = [group for group in ElementTree.fromstring(plot.svg).iter() if group.get("data-box")]
    assert len(groups) == 3
    for shown in (str(comparison), comparison._repr_html_(), plot.svg):
        assert all(method in shown for method in ("ar", "dflash", "ddtree"))
    assert plot._repr_mimebundle_()["image/svg+xml"] == plot.svg


def test_other_tokens_are_shown_as_such():
    results = [MethodResult("ar", "a", [1], 10.0, 1.0, 1, 1.0, True)]
    results.append(MethodResult("ddtree", "b", [2], 20.0, 2.0, 1, 2.0, False))
    wrong = Comparison(results)
    assert "NO" in str(wrong) and "NOT IDENTICAL" in wrong.plot().svg


def test_the_command_line_says_the_same(capsys, comparison):
    assert main(["--compare", "--prompt", MESSAGES[0]["content"], "-m", "32", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [printed[result.method]["tokens"] for result in comparison.results] == [r.tokens for r in comparison.results]

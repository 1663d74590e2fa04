"""The examples run as they stand."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_runs(example, capsys):
    runpy.run_path(str(example), run_name="__main__")
    assert "tokens a round" in capsys.readouterr().out

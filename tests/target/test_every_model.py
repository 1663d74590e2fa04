"""Every model file of mlx-lm: what docs/targets.md says of it is what the test at loading finds."""

import runpy
from pathlib import Path

import pytest

from ..every_model import NOT_HERE, model_files

ROOT = Path(__file__).parents[2]
STUDY = runpy.run_path(str(ROOT / "studies/targets/every_model.py"))
PAGE = (ROOT / "docs/targets.md").read_text(encoding="utf-8").partition("## Every model file")[2]


@pytest.mark.parametrize("name", model_files())
def test_the_page_says_what_is_found(name):
    kind, why = STUDY["verdict"](name)
    assert f"| {name} | {kind} | {why} |" in PAGE


def test_nine_of_ten_that_can_be_tried_verify_trees():
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") >= 2]
    kinds = [row[1] for row in rows if row[0].removeprefix("| ") in model_files()]
    assert len(kinds) == len(model_files())
    assert kinds.count("untested") == len(NOT_HERE)
    assert kinds.count("tree") >= 0.9 * (len(kinds) - len(NOT_HERE))

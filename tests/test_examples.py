"""The examples run as they stand, and the notebook shows what it says."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "tour.ipynb"
SAYS = {
    "quickstart.py": ["def "],
    "several_machines.py": ["machines: 1", "def "],
    "streaming.py": ["tokens a round", "seconds by stage", "✓"],
    "train_drafter.py": ["6 steps", "tokens a round"],
}


def test_every_example_is_tested():
    names = {file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb")}
    assert names == {*SAYS, "openai_client.py", NOTEBOOK.name}


@pytest.mark.parametrize("name", SAYS)
def test_runs(name, capsys):
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    out = capsys.readouterr().out
    assert all(text in out for text in SAYS[name])


@pytest.mark.skipif(importlib.util.find_spec("mlx_ddtree.server") is None, reason="there is no server yet")
def test_the_openai_client_gets_answers():
    command = [sys.executable, str(EXAMPLES / "openai_client.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "model: " in done.stdout and done.stdout.count("def ") >= 2 and " tokens\n" in done.stdout


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(notebook, kind):
    """All outputs of one MIME type, in their order; what was printed is text/plain as well."""
    printed = [o.text for o in outputs(notebook) if o.output_type == "stream" and kind == "text/plain"]
    return printed + [output.data[kind] for output in outputs(notebook) if kind in output.get("data", {})]


def check_outputs(notebook):
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    texts, pages, pictures = (shown(notebook, kind) for kind in ("text/plain", "text/html", "image/svg+xml"))
    whole, one_round, methods, settings = pictures
    assert all(tree.count('class="target"') == 2 and tree.count('class="accepted"') > 4 for tree in (whole, one_round))
    assert "the model&#x27;s probability" in one_round
    assert methods.count("the tokens of plain decoding") == 3 and "NOT IDENTICAL" not in methods
    assert settings.count("95 % interval") == 4
    watched = [re.sub("<[^>]+>", "", page) for page in pages if "the model&#x27;s own</b>" in page]
    assert len(watched) == 2 and all("def " in text for text in watched)
    assert any(page.startswith("<table") and "drafter" in page for page in pages), "the pair"
    assert any("--- stopped" in text for text in texts) and any("the target's own" in text for text in texts)


def test_the_notebook_runs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    check_outputs(notebook)


def test_the_notebook_is_kept_with_its_outputs():
    assert NOTEBOOK.stat().st_size < 300_000
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert str(Path.home()) not in NOTEBOOK.read_text() and "/work/" not in NOTEBOOK.read_text()

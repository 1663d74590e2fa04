"""Every command line of README and docs is one that works.

All of them are read by the parsers of their programs.  Those that need nothing but this repository are run, with short
answers: README's here, dear ones and those of other pages by `pytest -m slow`.  What is never run is named, with its
reason (`never_run`); its names are looked up without the Hub.
"""

import io
import re
import sys
from glob import glob
from importlib import import_module
from pathlib import Path

import pytest

from mlx_ddtree.__main__ import PROGRAMS, main
from mlx_ddtree.errors import OptionError
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.hub.registry import find_drafter

from .command_lines import ROOT, command_lines

LINES = command_lines()
OURS = [line for line in LINES if line.program]
OTHERS = [line for line in LINES if not line.program]
SHELL = {"cd", "for", "done", "ln", "curl", "hf", "cline", "$train", "python3"}
"""Words that begin lines which are no programs of this repository."""
REPOSITORY = r"(?!\.|pypi/|studies/)[\w-]+/[\w.-]+"
SHORTER = {
    "generate": ["--max-tokens", "6"],
    "chat": ["--max-tokens", "6"],
    "benchmark run": [
        "--count",
        "1",
        "--max-tokens",
        "6",
        "--methods",
        "ar",
        "ddtree",
        "--budgets",
        "4",
        "--plots",
        "none",
    ],
    "train": ["--minutes", "0.01", "--layers", "1", "--max-tokens", "24", "--batch-size", "1"],
}
"""What is added to a line that is run."""
WRONG_ON_PURPOSE = {"mlx_ddtree.generate --temp -1"}
"""Lines that show how a mistake is answered."""
DEAR = ("doctor", "train", "benchmark")


def never_run(line):
    """Why a line is read by its parser only; None if it can be run."""
    name, arguments = line.program
    if line.text in WRONG_ON_PURPOSE:
        return "it is wrong"
    if line.words[0] == "mlx.launch":
        return "several machines, or processes: tests/distributed"
    if "race" in arguments:
        return "an environment with another program"
    if name == "server" and "--help" not in arguments:
        return "runs until it is stopped: tests/server/test_program.py"
    if any(word.startswith("pypi/") or word == "--from-pypi" for word in arguments):
        return "the Python package index: tests/hub/test_package_index.py"
    if any(re.fullmatch(rf"{REPOSITORY}|\.\.\.|\$model", word) for word in arguments if not Path(ROOT / word).exists()):
        return "the Hub: tests/hub"
    return None


def parse(name, arguments):
    """The options as the program reads them; its own checks are made as well."""
    module = import_module(PROGRAMS[name][0])
    if name == "benchmark" and (not arguments or arguments[0].startswith("-")):
        arguments = ["run", *arguments]
    args = module.make_arguments().parse_args(arguments)
    getattr(module, "check", lambda args: None)(args)
    return args


def identity(line):
    return f"{line.page}: {line.text[:70]}"


@pytest.mark.parametrize("line", OURS, ids=identity)
def test_every_line_is_understood(line, desk):
    name, arguments = line.program
    if {"--help", "--version"} & set(arguments):
        with pytest.raises(SystemExit) as end:
            parse(name, arguments)
        assert end.value.code == 0
        return
    if line.text in WRONG_ON_PURPOSE:
        with pytest.raises(OptionError):
            parse(name, arguments)
        return
    args = parse(name, arguments)
    model = getattr(args, "model", None)
    if model and re.fullmatch(REPOSITORY, model) and not getattr(args, "draft_model", None) and name != "convert":
        assert model == "me/my-model" or find_drafter(model)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what the pages talk of, and the reader in it."""
    for name, folder in (("my-model", "target"), ("my-drafter", "drafter"), ("small-model", "target")):
        (tmp_path / name).symlink_to(Path(str(DEMO)) / folder)
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    question = "Write a function that counts vowels.\n"
    for name in ("question.txt", "long_question.txt"):
        (tmp_path / name).write_text(question)
    for name in ("book.txt", "long.txt"):
        (tmp_path / name).write_text(40 * "def add(a: int, b: int) -> int:\n    return a + b\n" + question)
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"name": {"type": "string"}}}')
    (tmp_path / "sums.lark").write_text('start: NUMBER " + " NUMBER\nNUMBER: /[0-9]+/\n')
    for name in ("prompts.jsonl", "my_prompts.jsonl"):
        (tmp_path / name).write_text(3 * '{"prompt": "Write a function that adds two numbers."}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line, desk, monkeypatch):
    """The exit status of a line, made short."""
    name, arguments = line.program
    if name == "train":
        (desk / "my-drafter").unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO((desk / line.stdin).read_text() if line.stdin else ""))
    words = [found for word in arguments for found in (sorted(glob(word)) if "*" in word else [word])]
    if name == "benchmark" and (not words or words[0] == "run"):
        words = ["run", *words[1:]]
    shorter = SHORTER.get(f"{name} {words[0]}" if words and f"{name} {words[0]}" in SHORTER else name, [])
    try:
        return import_module(PROGRAMS[name][0]).main([*words, *([] if "--help" in words else shorter)])
    except SystemExit as end:
        return end.code


def runnable():
    """The lines that can be run; those that are not README's, and dear ones, are slow."""
    for line in OURS:
        if never_run(line) is None:
            dear = line.page != "README.md" or (line.program[0] in DEAR and "--help" not in line.words)
            yield pytest.param(line, marks=[pytest.mark.slow] if dear else [], id=identity(line))


@pytest.mark.parametrize("line", runnable())
def test_it_runs(line, desk, monkeypatch, capsys):
    if "report" in line.words:
        (desk / "runs").mkdir()
        (desk / "benchmark").mkdir()
        made = Path("benchmark/a.jsonl")
        import_module(PROGRAMS["benchmark"][0]).main(["run", *SHORTER["benchmark run"], "--output", str(made)])
        (desk / "runs" / "a.jsonl").write_bytes(made.read_bytes())
    assert run(line, desk, monkeypatch) == 0, capsys.readouterr().err


def test_readme_has_lines_that_are_run():
    """Among them the one command that installs and runs the main job."""
    shown = [line for line in OURS if line.page == "README.md"]
    assert sum(never_run(line) is None for line in shown) >= 10
    assert any(line.program[0] == "generate" and "--compare" in line.words for line in shown)
    assert {line.program[0] for line in shown} == set(PROGRAMS)


@pytest.mark.parametrize("line", OTHERS, ids=identity)
def test_other_lines_name_what_is_there(line):
    first, *rest = line.words
    program = first.rpartition("/")[2]
    if program == "pytest":
        assert all((ROOT / word).exists() for word in rest if "/" in word)
    elif program == "pip":
        assert rest[0] == "install"  # what: tests/programs/test_extras.py
    elif program == "mlx_ddtree":
        assert main(rest) == 0
    elif program in ("python", "bash") and rest[0] != "-m":
        file = ROOT / rest[0]
        assert file.is_file()
        missing = [word for word in rest if word.startswith("--") and f'"{word}"' not in file.read_text()]
        assert not missing
    else:
        assert program in {*SHELL, "python"} or re.match(r"\w+=", first), "say here how such a line is tested"

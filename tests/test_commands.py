"""The command `mlx_ddtree` and the programs behind it: quick to speak, and of one language."""

import argparse
import subprocess
import sys
from functools import cache
from importlib import import_module

import pytest

import mlx_ddtree
from mlx_ddtree.__main__ import PROGRAMS, main

WITHOUT_MLX = """
import sys
from mlx_ddtree.__main__ import main
code = 0
for arguments in {lines}:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    print("loaded", arguments, code, sorted({{"mlx.core", "mlx_lm", "huggingface_hub"}} & set(sys.modules)))
"""
REQUIRED = {"convert": ["--hf-path", "x"], "train": ["--data", "x", "--output", "y"]}


def parsers():
    """(program, parser), of benchmark's commands too."""
    for name, (module, _) in PROGRAMS.items():
        parser = import_module(module).make_arguments()
        commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        yield name, parser
        for action in commands:
            yield from ((f"{name} {command}", sub) for command, sub in action.choices.items())


@cache
def said_without_mlx():
    """What one process has loaded after versions, helps and errors of all programs."""
    lines = [["--version"], ["--help"], ["genrate"]]
    for name in PROGRAMS:
        lines += [[name, "--version"], [name, "--help"], [name, "--no-such-option", *REQUIRED.get(name, [])]]
    lines += [["generate", "--temp", "-1"], ["generate", "--temp", "x"], ["chat", "--tree-budget", "5000"]]
    lines += [
        ["generate", "--n", "2", "--compare"],
        ["models", "--revision", "v1"],
        ["benchmark", "run", "--temps", "-1"],
    ]
    script = WITHOUT_MLX.format(lines=lines)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


def test_versions_helps_and_errors_need_no_mlx():
    done = said_without_mlx()
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded")]
    assert len(loaded) == 3 + 3 * len(PROGRAMS) + 6, done.stderr
    assert [line for line in loaded if not line.endswith("[]")] == []
    assert {line.split("] ")[-2 if line.count("] ") > 1 else -1].split()[0] for line in loaded} <= {"0", "2"}


def test_what_is_wrong_takes_two_lines_and_names_what_was_meant():
    errors = said_without_mlx().stderr
    assert "Traceback" not in errors
    assert errors.count("usage:") <= errors.count("error:")
    assert all(line.startswith(("usage: mlx_ddtree", "error: ")) for line in errors.splitlines())
    assert "there is no command 'genrate'; did you mean generate?" in errors


def test_an_option_that_is_mistyped_comes_with_the_one_that_was_meant(capsys):
    for arguments, meant in (
        (["generate", "--tmep", "1"], "--temp"),
        (["benchmark", "run", "--cuont", "1"], "--count"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert f"did you mean {meant}?" in capsys.readouterr().err


def test_help_shows_the_command_as_it_was_typed(capsys):
    with pytest.raises(SystemExit):
        main(["models", "--help"])
    shown = capsys.readouterr().out
    assert "mlx_ddtree models --fits" in shown and "mlx_ddtree.models" not in shown


@pytest.mark.parametrize("module", ["mlx_ddtree", "mlx_ddtree.generate", "mlx_ddtree.server"])
def test_modules_are_programs(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == (mlx_ddtree.__version__, 0)


def kind_of(action):
    """What an option's text becomes; a word for those without."""
    if action.nargs == 0:
        return type(action).__name__
    if action.type is None:
        return "str"
    for text in ("1", '{"a": 1}', "TRUE"):
        try:
            return type(action.type(text)).__name__.removeprefix("Posix")
        except (argparse.ArgumentTypeError, ValueError):
            continue
    raise AssertionError(action.option_strings)


def test_an_option_is_the_same_everywhere():
    """Its name, what it is called inside, how many values it takes, of which kind, and which ones."""
    known = {}
    for program, parser in parsers():
        for action in parser._actions:
            for name in action.option_strings:
                choices = None if action.choices is None else tuple(action.choices)
                meaning = (action.dest, action.nargs, kind_of(action), choices)
                first = known.setdefault(name, (program, meaning))
                assert meaning == first[1], f"{name}: {program} and {first[0]}"


def test_what_one_program_calls_so_no_other_calls_otherwise():
    """One meaning has one name: an option of one inner name has the same names in all programs."""
    names = {}
    for program, parser in parsers():
        for action in parser._actions:
            if action.option_strings and action.dest not in ("draft_model", "help"):
                first = names.setdefault(action.dest, (program, set(action.option_strings)))
                assert set(action.option_strings) == first[1], f"{program} and {first[0]}"


def test_every_program_has_the_common_options():
    for program, parser in parsers():
        options = parser._option_string_actions
        assert "--version" in options, program
        if program != "benchmark":  # its commands have them
            assert {"--verbose", "--log-level"} <= options.keys(), program


def test_public_names_load_when_they_are_used():
    script = (
        "import sys, mlx_ddtree; assert 'mlx.core' not in sys.modules and 'load' in dir(mlx_ddtree);"
        "from mlx_ddtree import load, OptionError; assert 'mlx.core' in sys.modules;"
        "assert not [n for n in mlx_ddtree.__all__ if not hasattr(mlx_ddtree, n)];"
        "print(mlx_ddtree.generate.__name__, hasattr(mlx_ddtree, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["generate", "False"], done.stderr

"""The layers of ARCHITECTURE.md, and the limits of CONTRIBUTING.md."""

import ast
from pathlib import Path

import pytest

import mlx_ddtree

PACKAGE = Path(mlx_ddtree.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize(
    "file", [PACKAGE / "errors.py", *sorted((PACKAGE / "tree").glob("*.py"))], ids=lambda f: f.name
)
def test_trees_know_nothing_of_mlx(file):
    allowed = ("mlx_ddtree.tree", "mlx_ddtree.errors")
    assert not [name for name in imports(file) if name.startswith("mlx") and not name.startswith(allowed)]


@pytest.mark.parametrize(
    "folder",
    [
        "benchmarking",
        "deft",
        "distributed",
        "kernels",
        "drafter",
        "target",
        "decoding",
        "hub",
        "budget",
        "branches",
        "generation",
        "icecache",
        "pflash",
        "tuning",
        "training",
    ],
)
def test_the_core_does_not_import_programs(folder):
    names = ("benchmark", "chat", "convert", "doctor", "generate", "models", "programs", "server", "train")
    programs = {f"mlx_ddtree.{name}" for name in names}
    for file in (PACKAGE / folder).glob("*.py"):
        assert not programs & set(imports(file)), file.name


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(file):
    assert len(file.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node) or ""
            assert node.end_lineno - node.lineno - len(docstring.splitlines()) <= 50, node.name


def test_nothing_is_patched_on_classes():
    for file in FILES:
        assert ".__call__ =" not in file.read_text(), file.name

"""The floors of ARCHITECTURE.md, and the limits of CONTRIBUTING.md.

The map in ARCHITECTURE.md gives every room of the package, a folder or a file at its top, a floor.  These tests read that
table, so the page cannot say what the code does not do.
"""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mlx_ddtree

PACKAGE = Path(mlx_ddtree.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAP = PACKAGE.parent / "ARCHITECTURE.md"

LONGEST_FILE = 300
LONGEST_FUNCTION = 50


def floors():
    """From a room's name to its floor: {"errors": 0, "tree": 3, ...}, as the map's table has it."""
    rows = re.findall(r"^\| (\d+) \| `([\w/.]+)`", MAP.read_text(), re.M)
    return {room.removesuffix("/").removesuffix(".py"): int(floor) for floor, room in rows}


def name_of(file):
    return str(file.relative_to(PACKAGE))


def parsed(file):
    return ast.parse(file.read_text())


def module_of(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_of(file): file for file in FILES}


def absolute(node, file):
    """The module that a `from ... import` names, dots in front resolved."""
    if not node.level:
        return node.module
    package = file.relative_to(PACKAGE.parent).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def imports(file):
    """Every module that a file imports, wherever the import stands: in functions and under TYPE_CHECKING too.

    `from a import b` names a.b where that is a module, and a otherwise.
    """
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, file)
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in MODULES else source


def own_imports(file):
    return [name for name in imports(file) if name.split(".")[0] == "mlx_ddtree"]


def room_of(module):
    """The room that a module of the package stands in; the package itself counts as __init__."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def runs_up(file):
    """The rooms that a file must not import: on its own floor or above, and not its own."""
    floor = floors()
    here = room_of(module_of(file))
    there = {room_of(name) for name in own_imports(file)} - {here}
    return {room for room in there if floor[room] >= floor[here]}


def test_every_room_is_on_the_map():
    rooms = {room_of(module) for module in MODULES}
    assert not rooms - set(floors()), "give these rooms a line in ARCHITECTURE.md's map"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_to_lower_floors(file):
    assert not runs_up(file)


def test_files_do_not_import_in_circles():
    """Type checking included: two files that need each other's types are one idea, or share a third."""
    TopologicalSorter({module: set(own_imports(file)) - {module} for module, file in MODULES.items()}).prepare()


READ_WITHOUT_MLX = ("__init__.py", "generation/options.py", "benchmarking/settings.py")
"""What a command line is read with: types that need MLX are named there for the type checker only."""


def test_no_import_of_the_package_waits_for_the_type_checker():
    for file in FILES:
        if name_of(file) in READ_WITHOUT_MLX:
            continue
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                assert "mlx_ddtree" not in ast.unparse(node), name_of(file)


@pytest.mark.parametrize("room", ["errors", "untrusted", "tree", "budget"])
def test_what_needs_no_mlx_imports_none(room):
    """Trees and budgets are numpy: they run, and are tested, without a model or a device."""
    for module, file in MODULES.items():
        if room_of(module) == room:
            assert not [name for name in imports(file) if name.split(".")[0] in ("mlx", "mlx_lm")], module


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_stay_short(file):
    assert len(file.read_text().splitlines()) <= LONGEST_FILE
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            assert node.end_lineno - node.lineno - len(docstring.splitlines()) <= LONGEST_FUNCTION, node.name


def imported_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)


def assigned_attributes(tree):
    """Every `a.b.c` that something is assigned to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield ast.unparse(node)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_is_patched_on_classes_or_modules(file):
    """What a file imports belongs to others: it may be called, and subclassed, but not changed."""
    tree = parsed(file)
    foreign = set(imported_names(tree))
    assert not [name for name in assigned_attributes(tree) if name.split(".")[0] in foreign]
    assert not [name for name in assigned_attributes(tree) if name.endswith("__call__")]

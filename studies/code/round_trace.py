"""How much code one round runs through, what imports what, and how dense the lines are.

Usage: python studies/code/round_trace.py [PACKAGE ...] [--no-rounds] [--count 4] [--tokens 96] [--verbose]

PACKAGE is a folder mlx_ddtree, of this or an older checkout (default: the one beside this file); a column each.

Rounds: one steady round of each setting, the embedded pair at temperature 0: the package's own calls, the distinct
functions and the files they stand in, models' and MLX's code aside.  Of the rounds behind the third it is the one with the
median number of calls.  The digest of all tokens and tau show whether two versions say the same.

Imports: rooms are the folders and files at the package's top.  A circle is a set of rooms that reach each other; the rooms
of a circle are put in the order in which the fewest imports run up, and these are counted.  Floors are the length of the
longest way down.  The core is decoding, tree, target and drafter.

Lines: per 100 lines of all files, conditional expressions, comprehensions, assignments of a tuple to a tuple, and how many
docstrings begin by leaning on a neighbour ("The same", "Of", "It", "They", "Its").
"""

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

SETTINGS = {
    "auto": {},
    "tree of 16": {"tree_budget": 16},
    "block of 8": {"method": "dflash", "block_size": 8},
    "ar": {"method": "ar"},
}
STEADY = 3  # rounds that are over before one is looked at
CORE = ("decoding", "tree", "target", "drafter")
BUDGET = ("budget/", "tree/planner", "tree/policy", "tree/cost", "tree/calibration", "tree/lookup", "tree/profile")
LEANING = ("Of ", "It ", "They ", "Its ", "The same ")
COMPREHENSIONS = (ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
COMPREHENSION_FRAMES = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")  # calls of their own in Python 3.11 only
ENTRY_LINES = 20  # a file at the top that is longer is a room, not a program's entry

# ---------------------------------------------------------------- rounds


def calls_of(run, package):
    """What `run` returns, and how often each (file, function) of the package was called."""
    calls = Counter()
    prefix = f"{package}{os.sep}"

    def count(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(prefix) and code.co_name not in COMPREHENSION_FRAMES:
            calls[code.co_filename.removeprefix(prefix), code.co_qualname] += 1

    sys.setprofile(count)
    try:
        return run(), calls
    finally:
        sys.setprofile(None)


def steady_round(stream, package):
    """The calls of the median one of a stream's steady rounds that drafted; of all, where none did."""
    rounds = []
    for _ in range(STEADY):
        next(stream)
    while True:
        response, calls = calls_of(lambda: next(stream, None), package)
        if response is None:
            break
        if response.finish_reason is None:
            rounds.append((response.kind, calls))
    drafted = [calls for kind, calls in rounds if kind == "draft"]
    chosen = sorted(drafted or [calls for _, calls in rounds], key=Counter.total)
    return chosen[len(chosen) // 2]


def trace_rounds(package, options):
    """From a setting's name to what its rounds took, by the package that this process imports."""
    from mlx_ddtree import load, stream_generate  # noqa: PLC0415  (whichever version is first in sys.path)

    pair = load()
    lines = (
        (package / "demo" / "heldout_prompts.jsonl").read_text(encoding="utf-8").splitlines()[: max(options.count, 2)]
    )
    prompts = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]
    list(stream_generate(pair, prompts[0], 32))  # measures the pair, and warms up
    most = options.tokens
    found = {}
    for name, setting in SETTINGS.items():
        tokens, taus = [], []
        for prompt in prompts:
            for response in stream_generate(pair, prompt, most, **setting):
                tokens += response.tokens
            taus.append(response.mean_acceptance_length)
        calls = steady_round(stream_generate(pair, prompts[1], most, **setting), package)
        found[name] = {
            "calls": calls.total(),
            "functions": len(calls),
            "functions outside the budget's": sum(not file.startswith(BUDGET) for file, _ in calls),
            "files": len({file for file, _ in calls}),
            "files outside the budget's": len({file for file, _ in calls if not file.startswith(BUDGET)}),
            "tau": round(sum(taus) / len(taus), 2),
            "digest of the tokens": hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:12],
        }
        if options.verbose:
            for file in sorted({file for file, _ in calls}):
                functions = ", ".join(function for where, function in calls if where == file)
                print(f"{name}: {file}: {functions}", file=sys.stderr)
    return found


def rounds_of(package, options):
    """`trace_rounds` by a process of the package's own, where this one has imported another."""
    import mlx_ddtree  # noqa: PLC0415

    if Path(mlx_ddtree.__file__).parent == package:
        return trace_rounds(package, options)
    sizes = ["--count", str(options.count), "--tokens", str(options.tokens)]
    command = [sys.executable, __file__, str(package), *sizes, "--trace-here"]
    with tempfile.TemporaryDirectory() as profiles:
        environment = {**os.environ, "PYTHONPATH": str(package.parent), "MLX_DDTREE_CACHE": profiles}
        done = subprocess.run(command, env=environment, cwd=package.parent, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


# ---------------------------------------------------------------- imports


def room_imports(package):
    """From (room, room it imports) to the number of imports, in functions and under TYPE_CHECKING too."""
    arrows = Counter()
    for file in package.rglob("*.py"):
        here = file.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for there in {room_of(name, package) for name in names} - {here, None}:
                arrows[here, there] += 1
    return arrows


def room_of(name, package):
    """The room of a module's or a member's dotted name; None where it is not the package's."""
    top, *rest = name.split(".")
    if top != package.name:
        return None
    known = rest and ((package / rest[0]).is_dir() or (package / f"{rest[0]}.py").exists())
    return rest[0] if known else "__init__"


def reachable(arrows):
    """From a room to the rooms that it imports, and that these import."""
    below = {}
    for here, there in arrows:
        below.setdefault(here, set()).add(there)

    def walk(room, seen):
        for there in below.get(room, ()):
            if there not in seen:
                seen.add(there)
                walk(there, seen)
        return seen

    return {room: walk(room, set()) for room in below}


def circles_of(arrows):
    """Sets of rooms that reach each other."""
    reach = reachable(arrows)
    members = [room for room in reach if room in reach[room]]
    return {frozenset(other for other in members if other in reach[room] and room in reach[other]) for room in members}


def upward(circle, arrows):
    """Imports that run up in the best order of a circle's rooms that moving one room at a time finds."""
    order = sorted(circle, key=lambda room: sum(n for (here, _), n in arrows.items() if here == room))

    def cost(rooms):
        floor = {room: i for i, room in enumerate(rooms)}
        inside = ((here, there, n) for (here, there), n in arrows.items() if here in floor and there in floor)
        return sum(n for here, there, n in inside if floor[here] < floor[there])

    best = cost(order)
    improved = True
    while improved:
        improved = False
        for room in circle:
            for place in range(len(order)):
                moved = [other for other in order if other != room]
                moved.insert(place, room)
                if cost(moved) < best:
                    order, best, improved = moved, cost(moved), True
    return best


def floors_of(arrows, circles):
    """The longest way down, a circle being one floor."""
    group = {room: circle for circle in circles for room in circle}
    below = {}
    for here, there in arrows:
        if group.get(here, here) != group.get(there, there):
            below.setdefault(group.get(here, here), set()).add(group.get(there, there))

    @cache
    def height(room):
        return 1 + max((height(other) for other in below.get(room, ())), default=0)

    return max(map(height, below))


def imports_of(package):
    arrows = room_imports(package)
    circles = circles_of(arrows)
    tops = [file for file in package.glob("*.py") if file.name != "__init__.py"]
    core = [file for folder in CORE for file in (package / folder).rglob("*.py")]
    return {
        "floors, a circle being one": floors_of(arrows, circles),
        "circles": len(circles),
        "rooms in circles": sum(map(len, circles)),
        "imports that run up": sum(upward(circle, arrows) for circle in circles),
        "loose files at the top": sum(len(file.read_text().splitlines()) > ENTRY_LINES for file in tops),
        "files of the core": len(core),
        "lines of the core": sum(len(file.read_text().splitlines()) for file in core),
    }


# ---------------------------------------------------------------- lines


def lines_of(package):
    counts = Counter()
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        counts["lines"] += len(text.splitlines())
        counts["files"] += 1
        counts["files over 300 lines"] += len(text.splitlines()) > 300
        for node in ast.walk(ast.parse(text)):
            counts["conditional expressions"] += isinstance(node, ast.IfExp)
            counts["comprehensions"] += isinstance(node, COMPREHENSIONS)
            counts["tuple assignments"] += assigns_tuples(node)
            counts["docstrings that lean"] += leans(node)
    per = {name: round(100 * counts.pop(name) / counts["lines"], 2) for name in list(counts) if name in DENSE}
    return dict(counts) | {f"{name} / 100 lines": value for name, value in per.items()}


DENSE = ("conditional expressions", "comprehensions", "tuple assignments")


def assigns_tuples(node):
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def leans(node):
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return (ast.get_docstring(node) or "").startswith(LEANING)


# ---------------------------------------------------------------- the table


def table(columns):
    """Text of {column: {row: value}}, rows by name."""
    rows = list(dict.fromkeys(name for column in columns.values() for name in column))
    width = max(map(len, rows))
    sizes = {
        title: max(len(title), *(len(str(value)) for value in column.values())) for title, column in columns.items()
    }
    lines = [" " * width + "".join(f"  {title:>{sizes[title]}}" for title in columns)]
    for row in rows:
        cells = (f"  {column.get(row, ''):>{sizes[title]}}" for title, column in columns.items())
        lines.append(f"{row:<{width}}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", metavar="PACKAGE", type=Path, nargs="*", default=[ROOT / "mlx_ddtree"])
    parser.add_argument("--no-rounds", action="store_true", help="only what can be read off the files")
    parser.add_argument("--count", type=int, default=4, help="prompts")
    parser.add_argument("--tokens", type=int, default=96, help="of each answer")
    parser.add_argument("--verbose", action="store_true", help="the functions of this package's rounds, on stderr")
    parser.add_argument("--trace-here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    packages = [package.resolve() for package in options.packages]
    if options.trace_here:
        sys.path.insert(0, str(packages[0].parent))
        print(json.dumps(trace_rounds(packages[0], options)))
        return
    columns = {}
    for package in packages:
        rows = {}
        if not options.no_rounds:
            for setting, found in rounds_of(package, options).items():
                rows |= {f"{setting}: {name}": value for name, value in found.items()}
        columns[str(package.parent)] = rows | imports_of(package) | lines_of(package)
    print(table(columns))


if __name__ == "__main__":
    main()

"""Which tests notice a fault: each of a list is planted in a copy of the checkout, and the tests that must see it are run.

Usage: python studies/code/planted_faults.py [WORD ...] [--check] [--list]

WORD: only faults whose file or reason has one of these words; default: all, which takes a quarter of an hour on two cores.
--check: plant nothing, only see that every fault's place and tests are there.
--list: the faults, without running anything.

The list is planted_faults.toml beside this file.  A fault is `old` text, which stands in `file` exactly once, that
becomes `new`; `tests` are what pytest gets; `why` says what is wrong then.  The faults are of the kinds that people make:
a comparison, an end off by one, a state that is not put back, a limit that is not kept.

First the tests have to pass in the copy as it is.  Then a fault is 'killed' where one of its tests fails, 'survived'
where all pass, and 'broken' where they could not be collected: such a fault shows nothing and needs another text.
Tests of Metal's kernels skip without clang (docs/metal_host.md), so there their faults survive.
Exit code 1 unless all are killed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_suffix(".toml")
COPIED = ("mlx_ddtree", "metal", "tests", "studies", "pyproject.toml")
VERDICTS = {0: "survived", 1: "killed"}  # by pytest's exit code


@dataclass(frozen=True)
class Fault:
    """One entry of the list; see the top of this file."""

    file: str
    old: str
    new: str
    tests: list[str]
    why: str

    def is_named(self, words: list[str]) -> bool:
        text = f"{self.file} {self.why}"
        return not words or any(word in text for word in words)


def read_faults() -> list[Fault]:
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))["fault"]
    return [Fault(**entry) for entry in entries]


# ---------------------------------------------------------------- the list against the checkout


def complaints(fault: Fault) -> list[str]:
    """What is wrong with an entry: its place, or its tests, are not to be found."""
    found = []
    times = (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old) if (ROOT / fault.file).exists() else 0
    if times != 1:
        found.append(f"{fault.file}: {fault.old!r} stands there {times} times, not once")
    if fault.old == fault.new:
        found.append(f"{fault.file}: {fault.old!r} becomes itself")
    for test in fault.tests:
        file, _, name = test.partition("::")
        function = name.partition("[")[0]
        there = (ROOT / file).exists() and re.search(rf"^def {function}\(", (ROOT / file).read_text("utf-8"), re.M)
        if not there:
            found.append(f"{fault.file}: there is no test {test}")
    return found


def check(faults: list[Fault]) -> bool:
    wrong = [complaint for fault in faults for complaint in complaints(fault)]
    for complaint in wrong:
        print(complaint)
    print(f"{len(faults)} planted faults, {len(wrong)} complaints")
    return not wrong


# ---------------------------------------------------------------- a copy of the checkout, and tests in it


def copy_checkout(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)


@contextmanager
def planted(fault: Fault, folder: Path):
    """The copy has the fault while the block runs."""
    path = folder / fault.file
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(fault.old, fault.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(right, encoding="utf-8")


def run_tests(tests: list[str], folder: Path) -> tuple[int, str]:
    """pytest's exit code in the copy, and the line that sums up."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),  # before a checkout that is installed for editing
        "PYTHONDONTWRITEBYTECODE": "1",  # compiled files of the same second would outlive a fault
        "MLX_DDTREE_TEST_CACHE": str(ROOT / ".cache" / "metal_host"),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    return done.returncode, lines[-1]


def plant_all(faults: list[Fault]) -> bool:
    """Print the table; whether every fault was killed."""
    killed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_checkout(folder)
        # 1. What fails without any fault would kill them all.
        tests = list(dict.fromkeys(test for fault in faults for test in fault.tests))
        code, says = run_tests(tests, folder)
        if code != 0:
            print(f"the tests do not pass without a fault: {says}")
            return False
        # 2. One fault after the other.
        for fault in faults:
            started = perf_counter()
            with planted(fault, folder):
                code, _ = run_tests(fault.tests, folder)
            verdict = VERDICTS.get(code, "broken")
            killed += verdict == "killed"
            print(f"{verdict:9} {perf_counter() - started:4.0f} s  {fault.file}: {fault.why}", flush=True)
    print(f"{killed} of {len(faults)} planted faults killed")
    return killed == len(faults)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    faults = [fault for fault in read_faults() if fault.is_named(options.words)]
    if options.list:
        for fault in faults:
            print(f"{fault.file}: {fault.why}")
        return
    done = check(faults) if options.check else check(faults) and plant_all(faults)
    if not done:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Who races: programs, each a process with an adapter, and the settings in which they enter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_ddtree.benchmarking.settings import STOCK
from mlx_ddtree.errors import OptionError

ADAPTERS = Path(__file__).parent / "programs"
OURS = "ours"


@dataclass(frozen=True)
class Program:
    """A program that answers prompts.

    name: as tables have it.
    adapter: the file that programs/serve.py loads.
    python: the Python that has the program.
    """

    name: str
    adapter: Path
    python: str

    @property
    def is_peer(self) -> bool:
        """Whether others wrote it; stock mlx_lm counts as ours, because it is the package's own dependency."""
        return self.name not in (STOCK, OURS)


@dataclass(frozen=True)
class Entrant:
    """A program in one setting.

    options: what its adapter's `answer` is given.
    """

    name: str
    program: Program
    options: dict[str, Any] = field(default_factory=dict)


Settings = dict[str, dict[str, Any]]
"""{what an entrant's name has after its program's: its options}."""


def our_settings(block: int) -> Settings:
    """The default, and the two of a fixed size that others have, too.  block: the largest, root included."""
    size = min(8, block)
    return {
        "auto": {},
        f"dflash {size}": {"method": "dflash", "block_size": size},
        "ddtree 8": {"method": "ddtree", "tree_budget": 8},
    }


def _block_sizes(block: int) -> list[int]:
    return sorted({min(8, block), block})


def z_lab_settings(block: int) -> Settings:
    return {f"block {size}": {"block_size": size} for size in _block_sizes(block)}


def dflash_mlx_settings(block: int) -> Settings:
    """A block of 8, its own adaptive default, and its tree mode, which its documentation does not mention."""
    size = min(8, block)
    return {
        f"block {size}": {"block_tokens": size, "verify_mode": "dflash"},
        "adaptive": {"block_tokens": block, "verify_mode": "adaptive"},
        "ddtree": {"block_tokens": block, "verify_mode": "ddtree"},
    }


def mlx_vlm_settings(block: int) -> Settings:
    size = min(8, block)
    return {f"cap {size}": {"draft_block_size": size}}


def mlx_dspark_settings(block: int) -> Settings:
    size = min(8, block)
    return {f"block {size}": {"max_draft_tokens": size - 1}}


PEERS: dict[str, tuple[str, Callable[[int], Settings]]] = {
    "z-lab": ("z_lab.py", z_lab_settings),
    "mlx-vlm": ("mlx_vlm.py", mlx_vlm_settings),
    "mlx-dspark": ("mlx_dspark.py", mlx_dspark_settings),
    "dflash-mlx": ("dflash_mlx.py", dflash_mlx_settings),
}
"""{a program that is known here: its adapter's file, and its settings for a drafter's block size}."""


def make_entrants(block: int, peers: Iterable[str] = (), only: Sequence[str] = ()) -> list[Entrant]:
    """Stock mlx_lm first, then ours, then the others.

    block: tokens of the drafter's trained block, root included.
    peers: 'NAME=PYTHON' for a program of PEERS that lives in another environment; those that are not given are looked
        for in this one.  'NAME=PYTHON,ADAPTER.py' for any other program (programs/serve.py says what an adapter is).
    only: names of entrants or programs that should race; empty for all.  Stock mlx_lm always does.

    Raises OptionError for what is no such text, for files that are not there, and for unknown names in `only`.
    """
    entrants = [Entrant(STOCK, Program(STOCK, ADAPTERS / "stock.py", sys.executable))]
    ours = Program(OURS, ADAPTERS / "ours.py", sys.executable)
    entrants += [Entrant(f"{OURS} {name}", ours, options) for name, options in our_settings(block).items()]
    given = dict(_read_peer(text) for text in peers)
    for name in dict.fromkeys([*PEERS, *given]):
        python, adapter = given.get(name, (sys.executable, None))
        if adapter is not None:
            entrants.append(Entrant(name, Program(name, adapter, python)))
            continue
        file, settings_for = PEERS[name]
        program = Program(name, ADAPTERS / file, python)
        entrants += [Entrant(f"{name} {label}", program, options) for label, options in settings_for(block).items()]
    return _chosen(entrants, only)


def _chosen(entrants: list[Entrant], only: Sequence[str]) -> list[Entrant]:
    known = {entrant.name for entrant in entrants} | {entrant.program.name for entrant in entrants}
    unknown = [name for name in only if name not in known]
    if unknown:
        names = ", ".join(entrant.name for entrant in entrants)
        raise OptionError(f"--entrants: nobody is called {unknown[0]!r}; there are {names}")
    wanted = {STOCK, *only} if only else known
    return [entrant for entrant in entrants if entrant.name in wanted or entrant.program.name in wanted]


def _read_peer(text: str) -> tuple[str, tuple[str, Path | None]]:
    """(name, (python, adapter or None)) of what --peer was given."""
    name, has_python, rest = text.partition("=")
    python, has_adapter, adapter = rest.partition(",")
    if not has_python or not name or not python:
        raise OptionError(f"--peer {text!r}: write NAME=PYTHON, such as z-lab=~/z-lab/bin/python")
    if name in (STOCK, OURS) or (name not in PEERS and not has_adapter):
        raise OptionError(
            f"--peer {text!r}: {name!r} is none of {', '.join(PEERS)}; for another program write NAME=PYTHON,ADAPTER.py"
        )
    files = [_existing(text, file) for file in ([python, adapter] if has_adapter else [python])]
    return name, (str(files[0]), files[1] if has_adapter else None)


def _existing(text: str, file: str) -> Path:
    """The file's whole path, links kept: a virtual environment's Python is one."""
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise OptionError(f"--peer {text!r}: there is no file {path}")
    return path

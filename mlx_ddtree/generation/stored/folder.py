"""A folder of checked files, of so many bytes in all: those that were used longest ago go.

Every file is written whole or not at all, so a kill costs the file that was being written and no other.  When a file
was used is its time of modification, which outlives the process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import time_ns

from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.lock import try_lock
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.files.tensors import TensorFile, read_facts, read_tensors, write_tensors

LOG = logging.getLogger(__name__)
SUFFIX = ".safetensors"
LOCK = "lock"


@dataclass
class _Entry:
    """nbytes: of a file.  used: when it was last, in nanoseconds."""

    nbytes: int
    used: int


class StoredFolder:
    """The files of one folder, which belongs to one process at a time; any thread may use it.

    path: of the folder, which is made where it is missing, for its user alone: it holds what was said.
    most_bytes: of all its files.

    Raises OptionError for a folder that cannot be written, or that another process uses.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._guard = Lock()
        self._entries: dict[str, _Entry] = {}
        self._told = False  # that files cannot be written
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (path / LOCK).open("a")
            mine = try_lock(self._lock)
        except OSError as error:
            raise OptionError(f"prompt caches cannot be kept in {path}: {error.strerror}") from None
        if not mine:
            self._lock.close()
            raise OptionError(f"another process keeps its prompt caches in {path}: give this one another folder")
        self._scan()

    def _scan(self) -> None:
        """Take note of what is there; what a killed process had not finished goes."""
        for file in self.path.iterdir():
            with suppress(OSError):
                if file.name.endswith(f"{SUFFIX}.unfinished"):
                    file.unlink()
                elif file.name.endswith(SUFFIX):
                    found = file.stat()
                    self._entries[file.name.removesuffix(SUFFIX)] = _Entry(found.st_size, found.st_mtime_ns)
        self._make_room()

    def close(self) -> None:
        """Let the folder go, for other processes."""
        self._lock.close()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> list[str]:
        """All files, by name."""
        with self._guard:
            return list(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all files together."""
        with self._guard:
            return sum(entry.nbytes for entry in self._entries.values())

    def facts(self, name: str) -> dict[str, str] | None:
        """A file's texts, unchecked; None for a file that has none, which goes."""
        try:
            return read_facts(self._file(name))
        except (OSError, ValueError) as error:
            self._lose(name, error)
            return None

    def read(self, name: str) -> TensorFile | None:
        """All of a file; None for one that is damaged, which goes."""
        try:
            return read_tensors(self._file(name))
        except (OSError, ValueError) as error:
            self._lose(name, error)
            return None

    def write(self, name: str, held: TensorFile) -> None:
        """Add a file; those that were used longest ago make room for it.  A full disk costs nothing but the file."""
        file = self._file(name)
        try:
            with replacing(file) as unfinished:
                os.fchmod(unfinished.fileno(), 0o600)
                write_tensors(unfinished, held)
            size = file.stat().st_size
        except OSError as error:
            if not self._told:
                LOG.warning("prompt caches are not kept in %s: %s", self.path, error.strerror)
            self._told = True
            with suppress(OSError):
                file.with_name(f"{file.name}.unfinished").unlink()
            return
        self._told = False
        with self._guard:
            self._entries[name] = _Entry(size, time_ns())
        self._make_room()

    def used(self, names: Sequence[str]) -> None:
        """These files are used now, each only with all those before it: the last one is to go first."""
        now = time_ns()
        for place, name in enumerate(names):
            with self._guard:
                entry = self._entries.get(name)
                if entry is None:
                    continue
                entry.used = now - place
            with suppress(OSError):
                os.utime(self._file(name), ns=(now - place, now - place))

    def remove(self, names: Iterable[str]) -> None:
        """Let files go."""
        for name in names:
            with self._guard:
                self._entries.pop(name, None)
            with suppress(OSError):
                self._file(name).unlink()

    def _make_room(self) -> None:
        with self._guard:
            excess = sum(entry.nbytes for entry in self._entries.values()) - self.most_bytes
            gone = []
            for name, entry in sorted(self._entries.items(), key=lambda item: item[1].used):
                if excess <= 0:
                    break
                excess -= entry.nbytes
                gone.append(name)
        self.remove(gone)

    def _lose(self, name: str, error: Exception) -> None:
        if not isinstance(error, FileNotFoundError):
            LOG.warning("%s is damaged and removed: %s", self._file(name), error)
        self.remove([name])

    def _file(self, name: str) -> Path:
        return self.path / f"{name}{SUFFIX}"

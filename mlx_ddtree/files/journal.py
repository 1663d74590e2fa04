"""A file of JSON rows that only grows, written by one process, complete after a kill at any byte."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.files.lock import try_lock
from mlx_ddtree.files.rows import Row, parse_row, read_bytes, rows_of

NEWLINE = b"\n"


def split_journal(content: bytes, path: Path, error: type[MlxDdtreeError]) -> tuple[list[tuple[str, Row]], bytes]:
    """A journal's rows as ('file:line', row), and the beginning of a row that was being written.

    The last line may lack its newline.  If it is a whole row nevertheless, the writer was stopped between the row and
    its newline, and the row counts; otherwise it is what the writer had got to.

    Raises `error` for a damaged row before that.
    """
    *lines, last = content.split(NEWLINE)
    rows = rows_of(lines, path, error)
    if not last:
        return rows, b""
    place = f"{path}:{len(lines) + 1}"
    try:
        rows.append((place, parse_row(last, place, error)))
    except error:
        return rows, last
    return rows, b""


def read_journal(path: Path, error: type[MlxDdtreeError]) -> list[tuple[str, Row]]:
    """The rows of a journal that another process may be writing, as ('file:line', row)."""
    rows, _ = split_journal(read_bytes(path, error), path, error)
    return rows


def end_last_line(path: Path) -> None:
    """See that what is appended next to a file of rows begins a line, whatever a killed program left at its end."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != NEWLINE:
            file.write(NEWLINE)


class Journal:
    """A journal, opened by the one process that appends to it.

    rows: what it holds, as ('file:line', row).
    unfinished: the beginning of a row that a killed process was writing; gone with the first `append`.

    Nothing is changed before the first `append`, so a file that turns out to be something else stays as it is.
    """

    def __init__(self, path: Path, error: type[MlxDdtreeError]) -> None:
        """Raises `error` if the file cannot be written or read, is damaged, or is open in another process."""
        self.path = path
        self._is_new = not path.exists()
        self._file = _open(path, error)
        try:
            self._take(error)
            self._file.seek(0)
            content = self._file.read()
            self.rows, self.unfinished = split_journal(content, path, error)
        except BaseException:
            self._file.close()
            raise
        self._lacks_newline = bool(content) and not content.endswith(NEWLINE)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, which are safe on the disk when this returns."""
        self._end_last_line()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        self._file.write(text.encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let the file go, for other processes; a file that was made here and never written to is removed."""
        if self._file.closed:
            return
        if self._is_new and self.path.exists() and self.path.stat().st_size == 0:
            self.path.unlink()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, error: type[MlxDdtreeError]) -> None:
        if not try_lock(self._file):
            raise error(f"{self.path} is being written by another process: wait for it, or name another file")

    def _end_last_line(self) -> None:
        """Cut off what is unfinished, or add the newline that a whole row lacks."""
        if not self._lacks_newline:
            return
        if self.unfinished:
            size = self._file.seek(0, os.SEEK_END)
            self._file.truncate(size - len(self.unfinished))
        else:
            self._file.write(NEWLINE)
        self._lacks_newline = False
        self.unfinished = b""


def _open(path: Path, error: type[MlxDdtreeError]) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+b")
    except OSError as problem:
        raise error(f"{path} cannot be written: {problem.strerror}") from None

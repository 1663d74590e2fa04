"""What a race has measured: a row for every turn, in memory or in a file with which a later race goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlx_ddtree.benchmarking.record import different_keys
from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.journal import Journal

ANSWER_FIELDS = ("tokens", "first", "seconds", "rounds")


@dataclass(frozen=True)
class Turn:
    """One prompt, answered by all that could.

    digest: of the prompt's text.
    kind: of the prompt, '' for none.
    answers: {entrant: its 'tokens', 'first' and 'seconds' (seconds from the question to the first and to the last
        token), 'rounds', and at temperature 0 'identical'}.
    """

    digest: str
    kind: str
    repeat: int
    answers: Mapping[str, Mapping[str, Any]]


class RaceRecord:
    """A race's turns, those of an earlier session included.

    path: a JSON Lines file to keep them in; None keeps them in memory.
    header: what has to be as it was for a file to be gone on with.

    Raises OptionError for a file that is something else, another race, or open in another process.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.turns: list[Turn] = []
        self._journal = None if path is None else Journal(path, OptionError)
        if self._journal is None or path is None:
            return
        try:
            rows = self._journal.rows
            if rows:
                _check_header(path, rows[0][1], header)
                self.turns = [_read_turn(place, row) for place, row in rows[1:]]
            elif self._journal.unfinished:
                raise OptionError(f"{path} is no race: give another --output, or remove the file")
            else:
                self._journal.append([header])
        except BaseException:
            self._journal.close()
            raise

    def has(self, digest: str, repeat: int) -> bool:
        """Whether this prompt had this turn already."""
        return any((turn.digest, turn.repeat) == (digest, repeat) for turn in self.turns)

    def append(self, turn: Turn) -> None:
        """Keep a turn; it is safe on the disk when this returns, if there is a file."""
        self.turns.append(turn)
        if self._journal is not None:
            self._journal.append([vars(turn)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.close()


def _check_header(path: Path, found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    different = different_keys(found, header)
    if different:
        raise OptionError(
            f"{path} is another race: {' and '.join(different[:4])} differ; give another --output, or remove the file"
        )


def _read_turn(place: str, row: Mapping[str, Any]) -> Turn:
    try:
        turn = Turn(**row)
        is_whole = all(field in answer for answer in turn.answers.values() for field in ANSWER_FIELDS)
    except (TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise OptionError(f"{place}: no turn of a race: remove the line, or the file")
    return turn


def kinds_of(turns: Sequence[Turn]) -> list[str]:
    """The prompts' kinds in the order in which they come."""
    return [kind for kind in dict.fromkeys(turn.kind for turn in turns) if kind]

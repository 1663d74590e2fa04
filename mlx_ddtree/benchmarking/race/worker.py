"""A program's process: asked over a pipe, and stopped when it does not answer in time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from mlx_ddtree.benchmarking.race.entrants import ADAPTERS, Program
from mlx_ddtree.errors import MlxDdtreeError

SERVE = ADAPTERS / "serve.py"
PIECE = 1 << 16


class ProgramError(MlxDdtreeError):
    """A program that does not do what it was asked; the text is the reason, without its name."""


@dataclass(frozen=True)
class Reply:
    """A program's answer to one prompt.

    tokens: generated, perhaps with the end token.
    first: seconds from the question to the first token.
    seconds: to the last one.
    rounds: verifications; steps, for plain decoding.
    """

    tokens: list[int]
    first: float
    seconds: float
    rounds: int

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> Reply:
        """Raises ProgramError for what is no such answer."""
        try:
            tokens = [int(token) for token in reply["tokens"]]
            figures = cls(tokens, float(reply["first"]), float(reply["seconds"]), int(reply["rounds"]))
        except (KeyError, TypeError, ValueError):
            raise ProgramError("its reply is not an answer") from None
        if not tokens or not 0 <= figures.first <= figures.seconds or figures.rounds < 0:
            raise ProgramError("its reply is not an answer: no tokens, or times that cannot be")
        return figures


class Worker:
    """A running program.

    It has a session of its own, so that Ctrl-C reaches only the race, which then stops it.
    """

    def __init__(self, program: Program, environment: Mapping[str, str]) -> None:
        """Raises ProgramError if the program's Python does not start."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._unread = b""
        command = [program.python, str(SERVE), str(program.adapter)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise ProgramError(f"{program.python} does not start: {error.strerror}") from None

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def load(self, folders: Mapping[str, Any], limit: float) -> str:
        """Load the pair; returns the program's versions.  Raises ProgramError."""
        return str(self._ask({"do": "load", "folders": folders}, limit).get("versions"))

    def answer(self, question: Mapping[str, Any], limit: float) -> Reply:
        """Answer a prompt within `limit` seconds.  Raises ProgramError; a program that is late is stopped."""
        return Reply.read(self._ask({"do": "answer", **question}, limit))

    def close(self) -> None:
        """Stop the process and everything that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """The program's reply.  Raises ProgramError: it failed, ended, was late, or spoke of something else."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise ProgramError(self._last_words()) from None
        line = self._line(time.monotonic() + limit, limit)
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise ProgramError("its reply is not a JSON object")
        if "failed" in reply:
            raise ProgramError(str(reply["failed"]))
        return reply

    def _line(self, deadline: float, limit: float) -> bytes:
        """The next line that the program writes."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self.close()
                raise ProgramError(f"no answer within {limit:g} s, so it was stopped")
            piece = os.read(pipe, PIECE)
            if not piece:
                raise ProgramError(self._last_words())
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last_words(self) -> str:
        """How the program ended, and the last line that it wrote to standard error."""
        code = self._process.wait()
        how = f"it ended with code {code}" if code >= 0 else f"it was ended by {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last}"[:300] if last else how

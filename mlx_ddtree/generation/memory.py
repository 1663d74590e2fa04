"""The option `memory`: earlier answers in the process or in a file, for the model that gave them.

A file is a line that names the format, a line of JSON and the tokens as 32-bit numbers.  It is replaced as a whole, and
several processes may use one: each adds its answers to what the file holds by then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlx_ddtree.budget.memory import Memory
from mlx_ddtree.budget.suffixes import CAPACITY, END
from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.lock import in_turn
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning.identity import fingerprint
from mlx_ddtree.untrusted import read_json

PROCESS = "process"
"""In place of a file's name: answers are remembered until the process ends."""
FORMAT = b"mlx_ddtree memory 1\n"
HEAD = 4096
"""Bytes that format and header take at most."""
LONGEST_WAIT = 10.0
"""Seconds to wait for another process that writes the file."""


class FileMemory(Memory):
    """Answers that a file keeps between processes.

    path: of the file, which need not exist.  model: whose answers they are (`identity_of`).

    Raises OptionError for a file that is something else, damaged, or another model's.
    """

    def __init__(self, path: Path, model: str, capacity: int = CAPACITY) -> None:
        super().__init__(capacity)
        self.path = path
        self.model = model
        self._new: list[int] = []
        super().add(self._read())

    def add(self, token_ids: Sequence[int]) -> None:
        super().add(token_ids)
        self._new += token_ids

    def keep(self) -> None:
        """Write what is new behind what the file holds now.  A full disk is no reason to stop decoding."""
        if not self._new:
            return
        try:
            with in_turn(self.path.with_name(self.path.name + ".lock"), LONGEST_WAIT, lambda: None):
                self._write([*self._read(), *self._new][-self.index.capacity :])
        except (OSError, OptionError) as error:
            logging.getLogger(__name__).warning("answers are not kept in %s: %s", self.path, error)
        self._new = []

    def _write(self, token_ids: list[int]) -> None:
        tokens = np.array(token_ids, "<i4").tobytes()
        header = {"model": self.model, "sha256": hashlib.sha256(tokens).hexdigest()}
        with replacing(self.path) as file:
            os.fchmod(file.fileno(), 0o600)  # it holds what was said
            file.write(FORMAT + json.dumps(header).encode() + b"\n" + tokens)

    def _read(self) -> list[int]:
        """The file's tokens; none where there is no file."""
        try:
            with self.path.open("rb") as file:
                content = file.read(HEAD + 4 * (self.index.capacity + 1))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OptionError(f"memory {self.path} cannot be read: {error.strerror}") from error
        if not content.startswith(FORMAT):
            raise OptionError(f"{self.path} is no memory of mlx_ddtree: give another file for --memory")
        header, _, tokens = content[len(FORMAT) :].partition(b"\n")
        model, token_ids = self._checked(header, tokens)
        if model != self.model:
            raise OptionError(f"{self.path} remembers answers of another model: give another file for --memory")
        return token_ids

    def _checked(self, header: bytes, tokens: bytes) -> tuple[str, list[int]]:
        """The model and the tokens that a file names.  Raises OptionError where they are damaged."""
        try:
            facts = read_json(header, error=OptionError)
            whole = facts.get("sha256") == hashlib.sha256(tokens).hexdigest() and len(tokens) % 4 == 0
        except OptionError:
            whole = False
        if not whole:
            raise OptionError(f"memory {self.path} is damaged: remove it, or give another file for --memory")
        token_ids = np.frombuffer(tokens, "<i4").tolist()
        if token_ids and not END <= min(token_ids) <= max(token_ids) < 1 << 20:
            raise OptionError(f"memory {self.path} is damaged: remove it, or give another file for --memory")
        return str(facts.get("model")), token_ids


def open_memory(pair: Pair, asked: str | Memory | None) -> Memory | None:
    """What the option `memory` asks for: one object for a name and a pair, however often it is opened.

    Raises OptionError for a file that cannot be used.
    """
    if asked is None or isinstance(asked, Memory):
        return asked
    if asked == PROCESS:
        return pair.memories.setdefault(PROCESS, Memory())
    path = Path(asked).expanduser().resolve()
    if str(path) not in pair.memories:
        if path.is_dir() or not path.parent.is_dir():
            raise OptionError(f"memory {asked} is no file in a folder that exists: name one that can be written")
        pair.memories[str(path)] = FileMemory(path, identity_of(pair))
    return pair.memories[str(path)]


def identity_of(pair: Pair) -> str:
    """A name for the target's weights and its tokenizer's vocabulary: tokens of others would mean something else."""
    vocabulary = json.dumps(sorted(pair.tokenizer.get_vocab().items())).encode()
    return hashlib.sha256(fingerprint(pair.target.model).encode() + vocabulary).hexdigest()[:32]

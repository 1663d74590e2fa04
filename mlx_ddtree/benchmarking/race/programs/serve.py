"""A worker of the race: loads one program's adapter and its models once, then answers prompts as asked.

Usage: PYTHON serve.py ADAPTER.py

PYTHON is the program's own, so this file needs the standard library alone.  Requests come as lines of JSON on standard
input, replies go as lines of JSON to standard output; whatever else the program prints goes to standard error.

* {"do": "load", "folders": {...}} is answered by {"versions": "dflash 0.1.0, mlx 0.32.4"}.
* {"do": "answer", "prompt": [...], "most": 96, "temp": 0.0, "seed": 7, "ends": [2], "options": {...}} is answered by
  {"tokens": [...], "first": seconds to the first token, "seconds": to the last one, "rounds": n}.
* What cannot be done is answered by {"failed": "why, in one line"}.

An adapter is a Python file with

* PACKAGES: the distributions whose versions are shown.
* load(folders): what `answer` needs.  folders has "target", "drafter" (local folders) and "hub" (the Hugging Face
  repository name under which the drafter lies in this process's cache, for programs that take only those).
* answer(loaded, ask, tell): calls tell(tokens) with what each round has brought, the prompt's own token first.  It may
  return a dict that replaces what was heard: "tokens", "first", "rounds".
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

BLAS = "MLX_DDTREE_RACE_BLAS"
"""The variable that names the BLAS library for every worker to load before MLX; unset where MLX's own is fast."""


class Listener:
    """What an adapter tells, and when."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.rounds = -1
        self.first = 0.0
        self._start = time.perf_counter()

    def __call__(self, tokens: list[int]) -> None:
        """Take down a round's tokens; nothing happens for an empty list."""
        if not tokens:
            return
        if not self.tokens:
            self.first = time.perf_counter() - self._start
        self.tokens += [int(token) for token in tokens]
        self.rounds += 1

    def reply(self, corrections: dict[str, Any] | None) -> dict[str, Any]:
        """The figures of an answer that has just ended."""
        seconds = time.perf_counter() - self._start
        heard = {"tokens": self.tokens, "first": self.first, "rounds": max(self.rounds, 0)}
        return heard | (corrections or {}) | {"seconds": seconds}


def load_adapter(path: Path) -> ModuleType:
    """The adapter's module."""
    spec = importlib.util.spec_from_file_location("race_adapter", path)
    assert spec is not None and spec.loader is not None
    adapter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapter)
    return adapter


def versions_of(packages: tuple[str, ...]) -> str:
    """Versions in one line; raises PackageNotFoundError for what is not installed."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*packages, "mlx"))


def reason_of(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, importlib.metadata.PackageNotFoundError):
        return f"not installed: this Python has no {error.name}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def serve(path: Path, requests: TextIO, replies: TextIO) -> None:
    """Reply to requests until there are no more."""
    adapter: Any = None
    loaded: Any = None
    for line in requests:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                adapter = load_adapter(path)
                reply: dict[str, Any] = {"versions": versions_of(adapter.PACKAGES)}
                loaded = adapter.load(request["folders"])
            else:
                listener = Listener()
                reply = listener.reply(adapter.answer(loaded, request, listener))
        except Exception as error:  # programs raise what they like; the race goes on without them
            reply = {"failed": reason_of(error)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    sys.path.pop(0)  # this folder, whose files are named like the packages that they import
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    library = os.environ.get(BLAS)
    if library:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    serve(Path(sys.argv[1]), sys.stdin, replies)


if __name__ == "__main__":
    main()

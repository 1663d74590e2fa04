"""The race itself: every prompt is answered by all programs, one after the other, in an order of its own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlx_ddtree._blas import find_mkl, use_fast_blas
from mlx_ddtree.benchmarking.bench import SEED, WARM_UP_TOKENS
from mlx_ddtree.benchmarking.race.entrants import Entrant, Program
from mlx_ddtree.benchmarking.race.folders import Folders
from mlx_ddtree.benchmarking.race.programs.serve import BLAS
from mlx_ddtree.benchmarking.race.worker import ProgramError, Reply, Worker
from mlx_ddtree.benchmarking.settings import STOCK
from mlx_ddtree.errors import MlxDdtreeError

LOAD_LIMIT = 600.0
"""Seconds in which a program has to load, and to give its first answer: it may measure or compile something then."""
CHECKOUT = Path(__file__).parents[3]
"""The folder that this package is imported from."""
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Rules:
    """What holds for every program.

    most: tokens of an answer.
    ends: tokens that end one.
    limit: seconds in which a program has to answer.
    threads: of the BLAS; None is what this process has.
    """

    most: int
    temp: float
    ends: Sequence[int]
    limit: float = 120.0
    threads: int | None = None


class Race:
    """Programs that are running and loaded.

    versions: {program's name: its versions}.
    failures: {entrant's name: why it is out}.
    """

    def __init__(
        self, entrants: Sequence[Entrant], folders: Folders, rules: Rules, say: Callable[[str], object] = len
    ) -> None:
        """Start and load every program, one after the other.

        say: hears how it goes, line by line.
        Raises MlxDdtreeError if stock mlx_lm cannot answer: without it there is nothing to compare with.
        """
        self.entrants = list(entrants)
        self.versions: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._rules = rules
        self._say = say
        self._workers: dict[str, Worker] = {}
        self._stack = ExitStack()
        try:
            for program in dict.fromkeys(entrant.program for entrant in entrants):
                self._start(program, folders)
        except BaseException:
            self.close()
            raise

    def warm_up(self, prompt: Sequence[int]) -> None:
        """Page in weights, compile kernels, start threads, measure the machine: nothing of that is counted."""
        for entrant in self.entrants:
            for _ in range(2):
                self._ask(entrant, prompt, min(WARM_UP_TOKENS, self._rules.most), SEED, LOAD_LIMIT)

    def turn(self, prompt: Sequence[int], number: int, seed: int = SEED) -> dict[str, Reply]:
        """{entrant's name: its answer} of those that gave one.

        number: of the turn; every one has an order of its own, so that nobody always comes after the same program.
        """
        replies = {}
        order = self.entrants[:]
        random.Random(number).shuffle(order)
        for entrant in order:
            reply = self._ask(entrant, prompt, self._rules.most, seed, self._rules.limit)
            if reply is not None:
                replies[entrant.name] = reply
        return replies

    def close(self) -> None:
        """Stop all programs."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, program: Program, folders: Folders) -> None:
        self._say(f"loading {program.name}")
        try:
            worker = self._stack.enter_context(Worker(program, environment_of(program, folders, self._rules.threads)))
            self.versions[program.name] = worker.load(folders.as_request(), LOAD_LIMIT)
        except ProgramError as error:
            self._drop(program, str(error))
        else:
            self._workers[program.name] = worker

    def _ask(self, entrant: Entrant, prompt: Sequence[int], most: int, seed: int, limit: float) -> Reply | None:
        """An entrant's answer; None if it is out."""
        if entrant.name in self.failures:
            return None
        rules = self._rules
        question = {"prompt": list(prompt), "most": most, "temp": rules.temp, "seed": seed, "ends": list(rules.ends)}
        worker = self._workers[entrant.program.name]
        try:
            return worker.answer(question | {"options": entrant.options}, limit)
        except ProgramError as error:
            self._fail(entrant, str(error))
            if not worker.is_running:
                self._drop(entrant.program, str(error))
            return None

    def _drop(self, program: Program, reason: str) -> None:
        for entrant in self.entrants:
            if entrant.program == program and entrant.name not in self.failures:
                self._fail(entrant, reason)

    def _fail(self, entrant: Entrant, reason: str) -> None:
        if entrant.name == STOCK:
            raise MlxDdtreeError(f"stock mlx_lm cannot race: {reason}")
        self.failures[entrant.name] = reason
        self._say(f"{entrant.name} is out: {reason}")


def environment_of(program: Program, folders: Folders, threads: int | None) -> dict[str, str]:
    """The variables of a program's process: one BLAS and one number of its threads for all.

    Programs of others find the drafter in a cache of this race's own, and ask nobody on the network.
    """
    environment: dict[str, str] = dict(os.environ)
    environment["TOKENIZERS_PARALLELISM"] = "false"
    if threads is not None:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    if use_fast_blas() == "Intel MKL":
        environment[BLAS] = str(find_mkl())
    if program.is_peer:
        return environment | {"HF_HUB_CACHE": str(folders.cache), "HF_HUB_OFFLINE": "1"}
    paths = [str(CHECKOUT), environment.get("PYTHONPATH", "")]
    return environment | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def figures_of(reply: Reply, rules: Rules) -> dict[str, Any]:
    """A reply as a line of a race's file: tokens up to the end, which counts as one, and times in seconds."""
    tokens = until_end(reply.tokens[: rules.most], rules.ends)
    return {
        "tokens": min(len(tokens) + 1, rules.most),
        "first": round(reply.first, 6),
        "seconds": round(reply.seconds, 6),
        "rounds": reply.rounds,
    }


def until_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first end token: some programs report that one, others do not."""
    for place, token in enumerate(tokens):
        if token in ends:
            return list(tokens[:place])
    return list(tokens)


def row_of_turn(replies: Mapping[str, Reply], rules: Rules) -> dict[str, Any]:
    """{entrant: figures} of one turn; 'identical' where tokens can be compared, which is at temperature 0."""
    stock = until_end(replies[STOCK].tokens[: rules.most], rules.ends)
    row = {}
    for name, reply in replies.items():
        figures = figures_of(reply, rules)
        if rules.temp == 0:
            figures["identical"] = until_end(reply.tokens[: rules.most], rules.ends) == stock
        row[name] = figures
    return row

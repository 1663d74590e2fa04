"""Needles in haystacks: one fact somewhere in a long text of real prose, real code or repeated sentences, and a
question about it.

The texts are Python's own (the language reference that `help()` shows, the standard library), so they are on every
machine; facts and names are made up from a seed.
"""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from pydoc_data import topics

KINDS = ("prose", "code", "repeated")
THINGS = ("access code", "port", "batch size", "offset", "order number", "seat", "version", "limit")
SYLLABLES = "ba ber cor dan el far gol hi jar ken lo mar nor os pel qui rin sol tar ur ven wil xan yor zem".split()
REPEATED = (
    "The grass is green. ",
    "The sky is blue. ",
    "The sun is yellow. ",
    "Here we go. ",
    "There and back again. ",
)
SOURCES = ("argparse", "ast", "calendar", "configparser", "csv", "difflib", "fractions", "heapq", "inspect", "shutil")


@dataclass(frozen=True)
class Fact:
    """What is to be found in a text of a kind: `thing` of `name` is `value`."""

    kind: str
    thing: str
    name: str
    value: str

    @property
    def statement(self) -> str:
        """The line that says the fact in the text."""
        return self.answer + (" " if self.kind == "repeated" else "\n")

    @property
    def question(self) -> str:
        if self.kind == "code":
            return f"What is {self._constant}?"
        return f"What is the {self.thing} of {self.name}?"

    @property
    def answer(self) -> str:
        if self.kind == "code":
            return f"{self._constant} = {self.value}"
        return f"The {self.thing} of {self.name} is {self.value}."

    @property
    def _constant(self) -> str:
        return f"{self.name}_{self.thing}".upper().replace(" ", "_")


@dataclass(frozen=True)
class NeedleCase:
    """A text with the fact's statement in the characters `needle` (first, end); the question comes after the text."""

    text: str
    needle: tuple[int, int]
    fact: Fact

    @property
    def prompt(self) -> str:
        return f"{self.text}\n{self.fact.question}"


def make_fact(kind: str, rng: random.Random) -> Fact:
    name = "".join(rng.choices(SYLLABLES, k=3)).capitalize()
    return Fact(kind, rng.choice(THINGS), name, str(rng.randrange(1000, 100_000)))


def needle_case(kind: str, characters: int, depth: float, seed: int) -> NeedleCase:
    """`depth` 0 puts the fact at the beginning, 1 at the end of about `characters` characters."""
    rng = random.Random(f"{kind} {characters} {depth} {seed}")
    fact = make_fact(kind, rng)
    pieces = haystack(kind, characters, rng)
    starts = [0, *accumulate(map(len, pieces))]
    place = min(range(len(starts)), key=lambda i: abs(starts[i] - depth * starts[-1]))
    before = "".join(pieces[:place])
    text = before + fact.statement + "".join(pieces[place:])
    return NeedleCase(text, (len(before), len(before) + len(fact.answer)), fact)


def haystack(kind: str, characters: int, rng: random.Random) -> list[str]:
    """Sentences or lines of one text after another, from a random place on, to be joined without more."""
    pieces: list[str] = []
    size = 0
    for piece in _pieces(kind, rng):
        if size >= characters:
            break
        pieces.append(piece)
        size += len(piece)
    return pieces


def _pieces(kind: str, rng: random.Random) -> Iterator[str]:
    if kind == "repeated":
        while True:
            yield from REPEATED
    texts = _prose() if kind == "prose" else _code()
    first = rng.randrange(len(texts))
    skip = rng.randrange(len(texts[first]))
    while True:
        yield from texts[first][skip:]
        first = (first + 1) % len(texts)
        skip = 0


@cache
def _prose() -> list[list[str]]:
    """The language reference by topic, each in sentences that end with a new line."""
    texts = [" ".join(text.split()) for name, text in sorted(topics.topics.items()) if len(text) > 1000]
    return [[sentence + "\n" for sentence in re.split(r"(?<=[.:]) (?=[A-Z])", text)] for text in texts]


@cache
def _code() -> list[list[str]]:
    """Modules of the standard library, each in lines."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in SOURCES]
    return [text.splitlines(keepends=True) for text in texts]

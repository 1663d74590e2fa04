"""Which beginnings of prompts a folder has: blocks of tokens, each named by a hash of all tokens up to its end.

A piece holds the rows of up to BLOCK tokens, or the states of a place, and says what it follows.  So a prompt finds its
pieces one after the other, and prompts that begin alike share theirs.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_ddtree.generation.turns import shared_beginning

BLOCK = 256
"""Tokens of a whole piece of rows: a layer's cache grows by as many."""
ROWS, PLACE = "rows", "place"


def digest_of(before: bytes, tokens: Sequence[int]) -> bytes:
    """The hash of a text that has `tokens` behind what `before` is the hash of."""
    return hashlib.sha256(before + np.array(tokens, "<i4").tobytes()).digest()


@dataclass(frozen=True)
class Piece:
    """What one file holds.

    kind: ROWS of `tokens`, or the states of the PLACE behind them.
    before: the hash of the text's first `start` tokens, a whole number of blocks.
    """

    kind: str
    before: bytes
    start: int
    tokens: tuple[int, ...]

    @property
    def name(self) -> str:
        """What the file of this piece is called."""
        return f"{digest_of(self.before, self.tokens).hex()[:40]}.{self.kind}"

    @property
    def stop(self) -> int:
        """Tokens of the text up to its end."""
        return self.start + len(self.tokens)

    @property
    def facts(self) -> dict[str, str]:
        """What its file says of it."""
        tokens = np.array(self.tokens, "<i4").tobytes()
        return {
            "kind": self.kind,
            "before": self.before.hex(),
            "start": str(self.start),
            "tokens": b64encode(tokens).decode(),
        }

    @classmethod
    def of(cls, name: str, facts: dict[str, str]) -> Piece | None:
        """The piece that a file says it has; None where its name does not say the same."""
        try:
            tokens = tuple(np.frombuffer(b64decode(facts["tokens"]), "<i4").tolist())
            piece = cls(facts["kind"], bytes.fromhex(facts["before"]), int(facts["start"]), tokens)
        except (KeyError, ValueError):
            return None
        return piece if piece.name == name else None


@dataclass(frozen=True)
class Beginning:
    """The longest beginning of a prompt that is there.

    tokens: how many it has.
    rows: its pieces of rows in order, of the last of which a part may be enough.
    place: whose states stand behind it; None where no layer has any.
    """

    tokens: int
    rows: tuple[Piece, ...]
    place: Piece | None

    @property
    def names(self) -> list[str]:
        """The files of this beginning, each behind all that it follows."""
        return [piece.name for piece in self.rows] + ([] if self.place is None else [self.place.name])


class PieceIndex:
    """The pieces of one model, by what they follow; one thread may add to it while another one looks.

    root: the hash of no tokens of this model.
    has_rows, has_states: what its caches are made of.
    """

    def __init__(self, root: bytes, has_rows: bool, has_states: bool) -> None:
        self.root = root
        self.has_rows = has_rows
        self.has_states = has_states
        self._after: dict[bytes, dict[str, Piece]] = {}

    def add(self, piece: Piece) -> None:
        """Take note of a piece."""
        self._after.setdefault(piece.before, {})[piece.name] = piece

    def remove(self, piece: Piece) -> None:
        """Forget a piece."""
        self._after.get(piece.before, {}).pop(piece.name, None)

    def following(self, before: bytes, kind: str) -> list[Piece]:
        """The pieces of a kind that follow a text."""
        known = list(self._after.get(before, {}).values())  # another thread may add to it
        return [piece for piece in known if piece.kind == kind]

    def longest(self, ids: Sequence[int]) -> Beginning | None:
        """The longest beginning of a prompt that is there, without its last token."""
        limit = len(ids) - 1
        chain: list[Piece] = []
        best: Beginning | None = None
        for before, start, whole in self._blocks(ids, limit):
            rest = ids[start : min(start + BLOCK, limit)]
            best = self._within(before, start, rest, chain) or best
            if whole is not None:
                chain.append(whole)
        return best

    def _blocks(self, ids: Sequence[int], limit: int) -> Iterator[tuple[bytes, int, Piece | None]]:
        """Where blocks of a prompt begin as far as all before are there: hash, tokens, and the whole piece there."""
        before, start = self.root, 0
        while True:
            tokens = tuple(ids[start : start + BLOCK])
            whole = len(tokens) == BLOCK and start + BLOCK <= limit
            after = digest_of(before, tokens)
            piece = Piece(ROWS, before, start, tokens) if whole else None
            known = piece is not None and piece.name in self._after.get(before, {})
            yield before, start, piece if known else None
            if not whole or (self.has_rows and not known):
                return
            before, start = after, start + BLOCK

    def _within(self, before: bytes, start: int, rest: Sequence[int], chain: list[Piece]) -> Beginning | None:
        """The longest beginning that ends in this block."""
        rows = self._longest_rows(before, rest)
        shared = 0 if rows is None else shared_beginning(rows.tokens, rest)
        if not self.has_states:
            if start + shared == 0:
                return None
            return Beginning(start + shared, (*chain, *([rows] if rows is not None and shared else [])), None)
        best: Piece | None = None
        for place in self.following(before, PLACE):
            reaches = shared if self.has_rows else len(rest)
            longer = best is None or len(place.tokens) > len(best.tokens)
            if longer and len(place.tokens) <= reaches and tuple(rest[: len(place.tokens)]) == place.tokens:
                best = place
        if best is None or best.stop == 0:
            return None
        own = [rows] if rows is not None and best.tokens else []
        return Beginning(best.stop, (*chain, *own), best)

    def _longest_rows(self, before: bytes, rest: Sequence[int]) -> Piece | None:
        """The rows that agree longest with what follows."""
        found = self.following(before, ROWS)
        return max(found, key=lambda piece: shared_beginning(piece.tokens, rest), default=None)

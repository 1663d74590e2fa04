"""Sessions that begin where a folder's files say: what a process has processed before a restart, or before it forgot.

The folder holds pieces (index.py): rows of keys and values, the drafter's among them, in blocks of tokens, and the
states of places.  They are written in the background once an answer is out, and believed only where their checksums
say so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from time import monotonic
from typing import Any
from weakref import WeakSet

import mlx.core as mx

from mlx_ddtree.decoding.context import WHOLE, make_prompt_cache
from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.tensors import TensorFile
from mlx_ddtree.generation.places import RUNG, Place
from mlx_ddtree.generation.session import Session
from mlx_ddtree.generation.stored.folder import StoredFolder
from mlx_ddtree.generation.stored.index import BLOCK, PLACE, ROWS, Beginning, Piece, PieceIndex, digest_of
from mlx_ddtree.generation.stored.layers import (
    RowFiller,
    can_be_stored,
    cut_rows,
    put_states,
    row_parts,
    state_parts,
    states_of,
)
from mlx_ddtree.generation.stored.writer import Writer
from mlx_ddtree.pair import Pair
from mlx_ddtree.target.marks import fit_mark, mark
from mlx_ddtree.tuning.identity import fingerprint

FORMAT = 1
"""Of the files; others are not read."""
LEAST_GAIN = 64
"""Tokens that a file must save to be read: so few are processed as fast."""
PATIENCE = 0.05
"""Seconds to wait for the disk before looking whether there is something else to do."""


class StoredPrefixes:
    """The beginnings of prompts that a folder keeps for one pair.  All but the writing belongs to the thread of MLX.

    folder: becomes this object's own.

    Raises OptionError where the pair's caches are of kinds that are not stored.
    """

    def __init__(self, pair: Pair, folder: StoredFolder) -> None:
        pair.target.on_one_machine("keeping prompt caches in a folder (--prompt-cache-dir)")
        cache = make_prompt_cache(pair)
        if not can_be_stored(cache):
            kinds = ", ".join(sorted({type(layer).__name__ for layer in cache}))
            raise OptionError(f"caches of this model cannot be kept in files ({kinds}): leave out --prompt-cache-dir")
        self.pair = pair
        self.folder = folder
        self._model = _model_of(pair)
        rows = self._row_parts(cache, pair)
        self.index = PieceIndex(self._model, bool(rows), bool(state_parts(cache.target)))
        self._writer = Writer()
        self._unsaved: WeakSet[Session] = WeakSet()
        self._tried: set[str] = set()
        for name in self.folder.names:
            facts = self.folder.facts(name)
            piece = None if facts is None or facts.get("model") != self._model.hex() else Piece.of(name, facts)
            if piece is not None:
                self.index.add(piece)

    @staticmethod
    def _row_parts(cache: Any, pair: Pair) -> dict[str, Any]:
        drafter = row_parts(cache.drafter, "drafter.") if pair.drafter is not None else {}
        return row_parts(cache.target, "target.") | drafter

    # Reading.

    def session_for(self, ids: list[int], beyond: int, **options: Any) -> Session | None:
        """A session that holds the longest beginning of a prompt that the folder has, if it goes well beyond so many
        tokens; options: of the Session."""
        while (found := self._longest(ids)) is not None and found.tokens >= beyond + LEAST_GAIN:
            session = self._read(ids, found, options)
            if session is not None:
                self.folder.used(found.names)
                return session
        return None

    def _longest(self, ids: list[int]) -> Beginning | None:
        """The longest beginning whose files are all there still."""
        while (found := self.index.longest(ids)) is not None:
            pieces = [*found.rows, *([] if found.place is None else [found.place])]
            gone = [piece for piece in pieces if piece.name not in self.folder]
            if not gone:
                return found
            for piece in gone:
                self.index.remove(piece)
        return None

    def _read(self, ids: list[int], found: Beginning, options: dict[str, Any]) -> Session | None:
        """The session of a beginning; None where one of its files is damaged, which is then gone."""
        session = Session(self.pair, **options)
        cache = session.cache
        filler = RowFiller(self._row_parts(cache, self.pair), found.tokens)
        for piece in found.rows:
            held = self.folder.read(piece.name)
            if held is None:
                return None
            filler.add(held.tensors, piece.start, min(piece.stop, found.tokens))
        if found.place is not None:
            held = self.folder.read(found.place.name)
            if held is None:
                return None
            put_states(cache.target, held.tensors, json.loads(held.facts["numbers"]))
        session.stand_behind(ids[: found.tokens])
        return session

    # Writing.

    def keep(self, session: Session) -> None:
        """What a session holds is to be written when there is time; it may go or change before."""
        self._unsaved.add(session)
        self._tried.clear()

    def save_next(self) -> bool:
        """Hand the next piece that is missing to the writing thread, or wait for that a moment.

        False where none is missing.
        """
        if not self._writer.has_room(PATIENCE):
            return True
        for session in list(self._unsaved):
            for piece, chain in self._missing(session):
                held = self._held(session, piece)
                if held is not None:
                    self._write(piece, chain, held)
                    return True
            self._unsaved.discard(session)
        return False

    def close(self, seconds: float) -> None:
        """Write what is missing, within so many seconds, and let the folder go."""
        end = monotonic() + seconds
        while monotonic() < end and self.save_next():
            pass
        self._writer.close(max(end - monotonic(), 0.0))
        self.folder.close()

    def _missing(self, session: Session) -> Iterator[tuple[Piece, list[str]]]:
        """Pieces of a session that the folder does not have, each with the names of those it follows."""
        tokens = session.token_ids
        if session.cache.coverage != WHOLE or not tokens:  # a compressed prompt's rows stand for no text
            return
        places = sorted(place.tokens for place in _worth_storing(session, self.index.has_states))
        before, start = self.index.root, 0
        chain: list[str] = []
        while start <= len(tokens):
            block = tuple(tokens[start : start + BLOCK])
            rows = Piece(ROWS, before, start, block)
            here = [rows] if self.index.has_rows and block else []
            for at in [place for place in places if start <= place < start + BLOCK]:
                here.append(Piece(PLACE, before, start, tuple(tokens[start:at])))
            for piece in here:
                if piece.name not in self.folder and piece.name not in self._tried:
                    yield piece, [*chain, *dict.fromkeys((rows.name, piece.name))]
            chain.append(rows.name)
            before, start = digest_of(before, block), start + BLOCK

    def _held(self, session: Session, piece: Piece) -> TensorFile | None:
        """A piece's content; None where the session does not have it."""
        self._tried.add(piece.name)
        facts = piece.facts | {"model": self._model.hex()}
        if piece.kind == ROWS:
            tensors = cut_rows(self._row_parts(session.cache, self.pair), piece.start, piece.stop)
            return None if tensors is None else TensorFile(facts, tensors)
        places = _worth_storing(session, self.index.has_states)
        place = next(place for place in places if place.tokens == piece.stop)
        tensors, numbers = states_of(session.cache.target, place.mark)
        return TensorFile(facts | {"numbers": numbers}, tensors)

    def _write(self, piece: Piece, chain: list[str], held: TensorFile) -> None:
        """Have a piece written; rows that are only its beginning go then."""
        shorter = [known for known in self.index.following(piece.before, ROWS) if _begins(known, piece)]

        def work() -> None:
            self.folder.write(piece.name, held)
            if piece.name in self.folder:
                self.index.add(piece)
                self.folder.remove(known.name for known in shorter)
            self.folder.used(chain)

        self._writer.do(work)


def _begins(known: Piece, piece: Piece) -> bool:
    """Whether a piece of rows is no more than the beginning of another one."""
    shorter = len(known.tokens) < len(piece.tokens)
    return piece.kind == ROWS and shorter and piece.tokens[: len(known.tokens)] == known.tokens


def _worth_storing(session: Session, has_states: bool) -> list[Place]:
    """The places that a later process may go back to: those where prompts depart, one in a rung, and the last ones."""
    if not has_states:
        return []
    places = [place for place in session.places if place.tokens < len(session.token_ids)]
    places.append(_end(session))
    kept = places[-3:]
    for place in places[:-3]:
        if place.anchor or all(abs(place.tokens - other.tokens) >= RUNG for other in kept):
            kept.append(place)
    return kept


def _end(session: Session) -> Place:
    """Where a session's caches stand now, which is behind all of its tokens."""
    layers = session.cache.target
    marked = mark(layers)
    fit_mark(layers, marked)
    return Place(len(session.token_ids), marked, session.cache.coverage)


def _model_of(pair: Pair) -> bytes:
    """A hash of what the numbers in the caches depend on: the weights, the libraries and the device."""
    drafter = pair.drafter
    facts = {
        "format": FORMAT,
        "target": fingerprint(pair.target.model),
        "drafter": None if drafter is None else fingerprint(drafter),
        "drafter_config": None if drafter is None else vars(drafter.config),
        "taps": pair.target.taps,
        "mlx": version("mlx"),
        "mlx_lm": version("mlx-lm"),
        "device": str(mx.default_device()),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).digest()

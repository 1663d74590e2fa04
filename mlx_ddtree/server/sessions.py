"""Sessions kept between requests, so that what a prompt shares with an earlier one is not processed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from mlx_ddtree.generation.session import Session
from mlx_ddtree.generation.stored.prefixes import StoredPrefixes
from mlx_ddtree.pair import Pair

PLACES_SHARE = 4
"""One part in so many of all sessions' memory is what one of them may spend on places that it can go back to."""
SAVING = 10.0
"""Seconds that a server that ends takes at most to write what is not written yet."""


class Sessions:
    """The sessions of one engine, which alone uses them: `most` at most, of `max_bytes` in all.

    They remember nothing of their answers but what the caches hold, because each may serve another user next.

    The longest unused one goes first.  A request that shares only a beginning with the best session gets a copy of
    that beginning, so that it does not cost another conversation its cache.

    stored: what a folder keeps of them besides; None: nothing.
    """

    def __init__(self, pair: Pair, most: int, max_bytes: int, stored: StoredPrefixes | None = None) -> None:
        self.pair = pair
        self.stored = stored
        self.most = most
        self.max_bytes = max_bytes
        self._kept: list[Session] = []  # the last one was used last
        self._in_use: list[Session] = []

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._kept)

    @property
    def nbytes(self) -> int:
        return sum(session.nbytes for session in self._kept)

    def take(self, ids: Sequence[int]) -> Session:
        """The session that a request for `ids` is to use; it is kept until it is the oldest."""
        idle = [session for session in self._kept if session not in self._in_use]
        best = max(idle, key=lambda session: session.reusable(ids), default=None)
        kept = 0 if best is None else best.reusable(ids)
        options: dict[str, Any] = {"remembers": False, "places_bytes": self.max_bytes // PLACES_SHARE}
        read = None if self.stored is None else self.stored.session_for(list(ids), kept, **options)
        if read is not None:
            session = read
        elif best is None or kept == 0:
            session = Session(self.pair, **options)
            session.departs_at = max((other.shared(ids) for other in self._kept), default=0)
        elif best.keeps_prompt(kept) or not self._fits_twice(best, kept):
            session = best
            self._kept.remove(best)
        else:
            session = best.fork(ids)
        self._kept.append(session)
        while len(self._kept) > max(self.most, 1) and self._let_oldest_go():
            pass
        return session

    @contextmanager
    def using(self, session: Session) -> Iterator[None]:
        """Leave a session to one answer for as long as the block takes; behind it, it was used last."""
        self._in_use.append(session)
        try:
            yield
        finally:
            self._in_use.remove(session)
            if session in self._kept:
                self._kept.remove(session)
                self._kept.append(session)

    def reusable(self, ids: Sequence[int]) -> int:
        """How many first tokens of a prompt need not be processed."""
        return max((session.reusable(ids) for session in self._kept if session not in self._in_use), default=0)

    def make_room(self) -> None:
        """Let older sessions go, oldest first, while the newest one grows beyond the bound."""
        before = len(self._kept)
        while self.nbytes > self.max_bytes and self._let_oldest_go():
            pass
        if len(self._kept) < before:
            mx.clear_cache()

    def trim(self) -> None:
        """Make the bound hold after an answer, whatever that costs; what is kept is written when there is time."""
        self.make_room()
        if self.stored is not None and self._kept:
            self.stored.keep(self._kept[-1])
        if self.most == 0 or self.nbytes > self.max_bytes:
            self._kept = [session for session in self._kept if session in self._in_use]
            mx.clear_cache()

    def save_while(self, idle: Callable[[], bool]) -> None:
        """Write what a folder is to keep and does not have, piece by piece, as long as it is so."""
        while self.stored is not None and idle() and self.stored.save_next():
            pass

    def close(self) -> None:
        """Write what is not written yet, within SAVING seconds, and give all up."""
        if self.stored is not None:
            self.stored.close(SAVING)
        self.drop_all()

    def drop_all(self) -> None:
        self._kept.clear()
        mx.clear_cache()

    def _let_oldest_go(self) -> bool:
        """Give up the session that was unused longest, if it is neither in use nor the newest one."""
        for session in self._kept[:-1]:
            if session not in self._in_use:
                self._kept.remove(session)
                return True
        return False

    def _fits_twice(self, session: Session, kept: int) -> bool:
        """Whether a copy of a session's first `kept` tokens leaves room for the session itself."""
        beginning = session.nbytes * kept // max(len(session.token_ids), 1)
        return self.most > 1 and session.nbytes + beginning <= self.max_bytes

"""What followed a text's last tokens wherever they stood before: a bounded index of suffixes over any number of texts.

Every place of the texts is linked to the last earlier one behind the same 4, 2 and 1 tokens.  A lookup follows these
links from the longest on and compares what stands before each place, so it knows how many tokens really agree.
Adding a token changes one entry in each of three dictionaries; so does forgetting the oldest once the index is full.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

ORDERS = (4, 2, 1)
"""Tokens behind which places are linked, longest first."""
PLACES = (16, 16, 8)
"""Places that are looked at by ORDERS, the latest first."""
ENOUGH = 8
"""Places behind longer matches after which shorter ones are not looked for."""
LONGEST = 24
"""Tokens before a place that are compared; a longer match says no more."""
CAPACITY = 1 << 18
"""Tokens that an index remembers: about 2,500 answers, in 60 MB at most."""
END = -1
"""Stands behind every text, so that nothing is copied across its end."""
_BITS = 20
_LAST = [(1 << order * _BITS) - 1 for order in ORDERS]
"""What of the last tokens as one number is the key of each order."""


class SuffixIndex:
    """Texts, of which the oldest tokens are forgotten once there are more than `capacity`.

    Token ids are below 2^20.  Raises ValueError for a capacity that holds no match.
    """

    def __init__(self, token_ids: Iterable[int] = (), capacity: int = CAPACITY) -> None:
        if capacity <= ORDERS[0]:
            raise ValueError(f"an index of {capacity} tokens is too small")
        self.capacity = capacity
        self.added = 0
        self._text = array("i")
        self._latest: list[dict[int, int]] = [{} for _ in ORDERS]  # places by the tokens before them, as one number
        self._earlier = [array("i", [0]) for _ in ORDERS]  # by place: the one before it behind the same tokens, or 0
        self._last = 0  # the last tokens as one number
        self._since_end = 0
        self.extend(token_ids)

    def __len__(self) -> int:
        """Tokens remembered, ends of texts among them."""
        return len(self._text)

    def token_ids(self) -> list[int]:
        """All that is remembered, oldest first; END behind every text."""
        start = self.added % self.capacity if self.added > self.capacity else 0
        return [*self._text[start:], *self._text[:start]]

    def extend(self, token_ids: Iterable[int]) -> None:
        """Add tokens; END ends a text, and what follows it is another one."""
        links = list(zip(ORDERS, _LAST, self._latest, self._earlier, strict=True))
        for token in token_ids:
            self._put(token)
            # The place behind it is linked to the one before.
            place = self.added
            slot = place % self.capacity
            grows = place < self.capacity
            last = self._last
            known = self._since_end
            for order, mask, latest, earlier in links:
                before = 0
                if known >= order:
                    key = last & mask
                    before = latest.get(key, 0)
                    latest[key] = place
                if grows:
                    earlier.append(before)
                else:
                    earlier[slot] = before

    def _put(self, token: int) -> None:
        """Put a token behind the others, in place of the oldest once the index is full."""
        if self.added < self.capacity:
            self._text.append(token)
        else:
            self._forget(self.added - self.capacity)
            self._text[self.added % self.capacity] = token
        self.added += 1
        if token == END:
            self._since_end = 0
        else:
            self._since_end += 1
            self._last = (self._last << _BITS | token) & _LAST[0]

    def _forget(self, start: int) -> None:
        """Take the places out whose tokens before them begin at `start`, where no later one has taken their entry."""
        for order, latest in zip(ORDERS, self._latest, strict=True):
            key = 0
            for token in self._tokens(start, start + order):
                key = -1 if token == END or key < 0 else key << _BITS | token
            if latest.get(key) == start + order:
                del latest[key]

    def _tokens(self, start: int, stop: int) -> list[int]:
        return [self._text[place % self.capacity] for place in range(start, stop)]

    def followers(self, context: Sequence[int]) -> list[tuple[int, int]]:
        """Tokens that stood behind the last ones of `context`: (how many agree before it, the token), one a place.

        The latest places come first, among those found behind equally many tokens.
        """
        found: list[tuple[int, int]] = []
        key = 0
        for token in context[-ORDERS[0] :]:
            key = key << _BITS | token
        above = LONGEST + 1
        for order, mask, latest, earlier, most in zip(ORDERS, _LAST, self._latest, self._earlier, PLACES, strict=True):
            if len(found) >= ENOUGH:
                break
            if order <= len(context):
                self._follow(latest.get(key & mask, 0), earlier, most, order, above, context, found)
                above = order
        return found

    def _follow(
        self,
        place: int,
        earlier: array[int],
        most: int,
        order: int,
        above: int,
        context: Sequence[int],
        found: list[tuple[int, int]],
    ) -> None:
        """Go from place to place, each behind `order` equal tokens; those that agree in `above` or more are known."""
        text = self._text
        capacity = self.capacity
        oldest = max(self.added - capacity, 0)
        length = min(len(context), LONGEST)
        while place >= oldest + order and most:
            if place < self.added:
                token = text[place % capacity]
                if token != END:
                    match = order
                    longest = min(length, place - oldest)
                    while match < longest and text[(place - match - 1) % capacity] == context[-match - 1]:
                        match += 1
                    if match < above:
                        found.append((match, token))
                most -= 1
            place = earlier[place % capacity]

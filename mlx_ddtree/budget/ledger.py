"""What drafting has won and lost in one text, and what it may still lose: never slower than plain decoding, as a rule.

All sums are in steps of plain decoding.  A round of n tokens that takes as long as m steps wins n - m; a text may lose
2 % of its tokens, counted as 64 at least, so that the first round can be paid.  A round begins only where its worst case,
that nothing of it is accepted, fits into what is left.  So whatever drafters, copies and texts do, a text of 64 tokens or
more takes at most 2 % longer than by plain decoding, and what one round takes longer than the costs promise.
"""

from __future__ import annotations

import math

LOSS = 0.02
"""Share of a text's tokens that may be lost, in steps."""
SHORTEST = 64
"""A text counts as this many tokens at least."""
MOST = 8.0
"""Steps that are kept: what earlier rounds won beyond them does not pay for a long stretch that no draft hits."""
DISTURBED = 2.0
"""A round of a size that was as promised the last time, and now takes so many times what is promised, was disturbed by
something else: the rest does not count."""


class Ledger:
    """One text's account.

    start: tokens in the cache before its first round.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self._carried = 0.0  # steps, when the sums began
        self._tokens = 0.0  # of rounds since then
        self._seconds = 0.0
        self._as_promised: set[int] = set()

    def credit(self, context: int, step: float) -> float:
        """Steps that may be lost now.

        context: tokens in the cache.  step: seconds of a plain one, as far as known; rounds already counted follow it.
        """
        allowance = self._allowance(context)
        credit = self._carried + allowance + self._tokens - self._seconds / step
        if credit > MOST:
            credit = MOST
            self._carried = MOST - allowance
            self._tokens = 0.0
            self._seconds = 0.0
        return credit

    def tokens_for(self, steps: float, context: int) -> int:
        """Tokens of plain decoding that bring in so many steps."""
        if steps <= 0:
            return 0
        free = max(SHORTEST - (context - self.start), 0)  # they are in the credit already
        return free + math.ceil(steps / LOSS)

    def add(self, tokens: int, seconds: float, promised: float, rows: int) -> None:
        """Count a round of `rows` rows; promised: the seconds that it was expected to take."""
        disturbed = seconds > DISTURBED * promised
        if disturbed and rows in self._as_promised:
            seconds = DISTURBED * promised
        if disturbed:
            self._as_promised.discard(rows)
        else:
            self._as_promised.add(rows)
        self._tokens += tokens
        self._seconds += seconds

    def _allowance(self, context: int) -> float:
        return LOSS * max(context - self.start, SHORTEST)

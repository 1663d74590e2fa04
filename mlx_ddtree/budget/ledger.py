"""What drafting has won and lost in one text, and what it may still lose: never slower than plain decoding, by rule.

All sums are in steps of plain decoding.  A round of n tokens that takes as long as m steps wins n - m.  A text may
lose 2 % of its tokens, counted as SHORTEST at least so that the first drafts can be paid.  A drafted round begins only
where the smallest one, if nothing of it is accepted, fits into what is left; it takes no more than that or than a share
of what is left.  So whatever drafters, copies and texts do, a text of SHORTEST tokens or more takes at most 2 % longer
than by plain decoding, but for two small copies and for what a round took longer than its costs promised.
"""

from __future__ import annotations

import math

from mlx_ddtree.budget.cost import CostTable

LOSS = 0.02
"""Share of a text's tokens that may be lost, in steps."""
SHORTEST = 128
"""A text counts as this many tokens at least.  With 64 a first draft that fails by bad luck leaves nothing for a second
one, and texts that would pay lose a tenth or more (docs/auto_budget.md)."""
MOST = 8.0
"""Steps that are kept: what earlier rounds won beyond them does not pay for a long stretch that no draft hits."""
SURE = 0.75
"""Chance of a copy's first token from which it may be tried with debts, too."""
SURE_DEBT = 2.0
"""Steps of debts with which it still is."""
DISTURBED = 2.0
"""A round of a size that took what was promised the last time, and now takes so many times that, was disturbed by
something else: the rest does not count."""
CHECK = 4
"""Steps of plain decoding that are taken to time them: as they run ahead of the host, the first two and the last say
nothing."""
CHECK_EVERY = 128
"""Tokens after which plain decoding is timed again where drafting is not `CLEARLY` faster."""
CLEARLY = 1.3
FIRST_CHECK = 32
"""The same two, as long as no step of plain decoding was timed in this process, or since rounds began to take another
time than before: all that is known then is what was measured once."""
FIRST_CLEARLY = 1.5


class Ledger:
    """One text's account.

    start: tokens in the cache before its first round.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self._carried = 0.0  # steps, when the sums below began
        self._tokens = 0.0
        self._seconds = 0.0
        self._as_promised: set[int] = set()  # rows

    def credit(self, context: int, step: float) -> float:
        """Steps that may be lost now.

        context: tokens in the cache.  step: seconds of a plain one as far as known; what is counted already follows it.
        """
        allowance = LOSS * max(context - self.start, SHORTEST)
        credit = self._carried + allowance + self._tokens - self._seconds / step
        if credit > MOST:
            credit = MOST
            self._carried = MOST - allowance
            self._tokens = 0.0
            self._seconds = 0.0
        return credit

    def tokens_until(self, steps: float, context: int, step: float) -> int:
        """Tokens of plain decoding until so many steps may be lost; other arguments as for `credit`."""
        missing = steps - self.credit(context, step)
        if missing <= 0:
            return 0
        counted_already = max(SHORTEST - (context - self.start), 0)
        return counted_already + math.ceil(missing / LOSS)

    def lose(self, seconds: float) -> None:
        """Count seconds that brought no token."""
        self._seconds += seconds

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


class NeverSlower:
    """When one text's next draft may begin, and what a round may take.

    cost: what rounds and steps take; it learns from them.
    shortest_block: tokens of the cheapest draft, root included; 0 without a drafter.
    """

    def __init__(self, cost: CostTable, shortest_block: int) -> None:
        self.cost = cost
        self.shortest_block = shortest_block
        self._ledger: Ledger | None = None
        self._drafted_at = 0  # tokens in the cache after the last drafted round
        self._plain_until = 0  # the same after the last run of plain decoding

    def ledger(self, context: int) -> Ledger:
        """The account, which begins with the text's first round; context: tokens in the cache."""
        if self._ledger is None:
            self._ledger = Ledger(context)
            self._drafted_at = context
            self._plain_until = context
        return self._ledger

    def affordable(self, context: int) -> float:
        """Seconds that a drafted round may take although nothing of it is accepted, all its stages together."""
        return self._affordable(context, self._smallest(context), least=0.0)

    def affordable_copy(self, context: int, chance: float) -> float:
        """Seconds that a round which only copies may take although nothing of it is accepted.

        chance: that its first token is right.  A round of two rows may begin with nothing left, or with debts if its
        copy is SURE: copies are cheap, and what they win is much.
        """
        smallest = self._smallest(context, drafted=False)
        debt = SURE_DEBT if chance >= SURE else 0.0
        return self._affordable(context, smallest, least=1 - smallest / self.cost.step(context) - debt)

    def _affordable(self, context: int, smallest: float, least: float) -> float:
        """smallest: seconds of the smallest round; least: steps of credit that it does not begin with any more."""
        step = self.cost.step(context)
        credit = self.ledger(context).credit(context, step)
        if credit <= least:
            return 0.0
        return max((1 + credit) * step, smallest)

    def pause(self, context: int, pays: bool) -> int:
        """Tokens to decode plainly before the next draft; 0 drafts now.

        pays: whether drafts are likely to be faster than plain decoding.  Where they are not, what was won before does
        not count: what the smallest drafted round may lose is brought in by the steps between two of them.
        """
        step = self.cost.step(context)
        restart = self.restart(context)
        loss = (self._smallest(context) + restart) / step - 1
        tokens = self.ledger(context).tokens_until(loss, context, step)
        if not pays:
            tokens = max(tokens, math.ceil(loss / LOSS) - (context - self._drafted_at))
        if tokens > 0:
            self._begin_plain_run(context, tokens, restart)
        return max(tokens, 0)

    def rest(self, context: int) -> None:
        """A run of plain decoding begins whose end is open: nothing drafts, and a copy may end it."""
        self.ledger(context).lose(self.restart(context))

    def restart(self, context: int) -> float:
        """Seconds that the first step of a run of plain decoding takes longer than the others."""
        first = self.cost.verifying(0, context, chain=True)
        return max(first - self.cost.step(context), 0.0)

    def check(self, context: int, advantage: float) -> int:
        """Tokens to decode plainly so that it is known how fast that is; 0 where it is known well enough.

        advantage: how many times as fast as plain decoding drafted rounds seem to be.
        """
        known = self.cost.steps_timed > 0
        clearly = CLEARLY if known else FIRST_CLEARLY
        every = CHECK_EVERY if known else FIRST_CHECK
        if advantage >= clearly or context - self._plain_until < every:
            return 0
        self._begin_plain_run(context, CHECK, 0.0)
        return CHECK

    def saw(self, tokens: int, seconds: float, promised: float, rows: int, context: int, drafted: bool) -> None:
        """Count a round; arguments as for Ledger.add.  context: tokens in the cache before it."""
        self.ledger(context).add(tokens, seconds, promised, rows)
        if drafted:
            self._drafted_at = context + tokens

    def _begin_plain_run(self, context: int, tokens: int, restart: float) -> None:
        """Count what its first step takes longer than the others, which run ahead of the host."""
        if context > self._plain_until:
            self.ledger(context).lose(restart)
        self._plain_until = context + tokens

    def _smallest(self, context: int, drafted: bool = True) -> float:
        """Seconds of the smallest round: one token behind the root is verified, of the shortest block or of a copy."""
        drafting = self.cost.drafting(self.shortest_block) if drafted else 0.0
        return drafting + self.verifying_one(context) + self.cost.round

    def verifying_one(self, context: int) -> float:
        """Seconds of a verification of the root and one node."""
        return self.cost.verifying(min(1, len(self.cost.rows) - 1), context, chain=True)

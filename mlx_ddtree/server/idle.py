"""What a server does while nothing is asked of it: it goes on measuring its pair, a moment at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning.measure import measure_more

LOG = logging.getLogger(__name__)
MOMENT = 1.0
"""Seconds of measuring at a time: as long may a request have to wait."""


def measured_share(pair: Pair | None) -> float:
    """The share of a pair's measurements that is made; 1 where there is nothing to measure."""
    profile = None if pair is None else pair.profile
    return 1.0 if profile is None else profile.measured


def measure_while(idle: Callable[[], bool], pair: Pair) -> None:
    """Measure what is missing, as long as it is so.  Should that fail, what is known has to do."""
    while idle() and measured_share(pair) < 1:
        before = measured_share(pair)
        try:
            measure_more(pair, MOMENT)
        except Exception:
            LOG.exception("measuring the pair failed; what is known of it is used")
            assert pair.profile is not None
            pair.profile.measured = 1.0
        if int(10 * measured_share(pair)) > int(10 * before):
            sys.stderr.write(f"measuring the pair: {100 * measured_share(pair):.0f} % done\n")

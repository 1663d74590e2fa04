"""What all plots have in common: sizes that can be read on a page, colours, labels of axes; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mlx_ddtree.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PAGE = 8.9
"""Inches: as wide as GitHub shows a picture (860 pixels).  What is wider is shrunk, and its text with it."""
SIZE = 9
"""Points of every letter."""
# Okabe and Ito's colours, and hatches and markers, so that nothing is said by colour alone.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
HATCHES = ("", "///", "\\\\\\", "xx")
SEEN = 0.003
"""The share of all rounds below which nobody sees a bar."""


def plot_style(why: str = "plots") -> AbstractContextManager[None]:
    """A context in which plots are drawn and saved.  Raises MissingExtraError without matplotlib, which `why` needs."""
    try:
        import matplotlib  # noqa: PLC0415 (optional)
    except ImportError:
        raise MissingExtraError(why, "matplotlib", "plots", ", or add --plots none") from None
    style: dict[Any, Any] = {
        "svg.hashsalt": "mlx_ddtree",
        "svg.fonttype": "none",
        "font.size": SIZE,
        "axes.titlesize": SIZE + 1,
        "legend.fontsize": SIZE,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
    }
    return matplotlib.rc_context(style)


def label_logarithmic(axis: Axis, places: Iterable[float] | None = None) -> None:
    """Plain numbers along a logarithmic axis: at 1, 2 and 5 of every power of ten, or at `places`.

    places: what was measured; of those closer than a third to each other only the first is labelled.
    """
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator  # noqa: PLC0415 (optional)

    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if places is None else FixedLocator(apart(places)))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")


def apart(places: Iterable[float]) -> list[float]:
    """Those of `places`, ascending, that are at least a third larger than the last one that was kept."""
    kept: list[float] = []
    for place in sorted(places):
        if not kept or place >= kept[-1] * 4 / 3:
            kept.append(place)
    return kept


def label_shares(axes: Axes) -> None:
    """Whole percents up the axis."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: PLC0415 (optional)

    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

"""A run's figures as pictures; needs matplotlib, the extra `plots`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_ddtree.benchmarking.plot_style import (
    COLORS,
    HATCHES,
    MARKERS,
    PAGE,
    SEEN,
    label_logarithmic,
    label_shares,
    plot_style,
)
from mlx_ddtree.benchmarking.report import place_title, trained_block
from mlx_ddtree.benchmarking.settings import method_of, size_of
from mlx_ddtree.benchmarking.summary import STAGES, Cell, Summary, fastest, is_sized

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGH = 3.4
"""Inches of a panel; more where it has more rows than fit."""
ROW = 0.23
"""Inches of a row with a name."""


def draw_plots(summary: Summary, folder: Path, prefix: str = "", kind: str = "svg") -> list[Path]:
    """Speedup against budget, acceptance lengths, time by stage: a file each in `folder`.

    kind: 'svg' or 'png'.
    """
    drawings: dict[str, Callable[[Axes, list[Cell]], None]] = {
        "speedup": speedup_by_budget,
        "acceptance": acceptance_lengths,
        "stages": time_by_stage,
    }
    files = []
    with plot_style("a report's plots"):
        for name, draw in drawings.items():
            file = folder / f"{prefix}{name}.{kind}"
            rows = len(staged(summary.cells)) / len(summary.places) if draw is time_by_stage else 0
            figure = panels(summary, draw, max(HIGH, ROW * rows + 1))
            figure.savefig(file, metadata={"Date": None} if kind == "svg" else None, dpi=120)
            files.append(file)
    return files


def panels(summary: Summary, draw: Callable[[Axes, list[Cell]], None], high: float = HIGH) -> Figure:
    """A panel for every data set and temperature, two beside each other; high: inches of each."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (optional)

    places = summary.places
    columns = min(2, len(places))
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(PAGE if columns > 1 else 0.75 * PAGE, high * rows), layout="constrained")
    for i, (data, temp) in enumerate(places):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(place_title(data, temp))
        draw(axes, summary.at(data, temp))
    return figure


def speedup_by_budget(axes: Axes, cells: list[Cell]) -> None:
    """Lines over the sizes that were fixed, with their 95 % intervals; level lines for those that choose themselves."""
    measured: list[int] = []
    for i, (method, name) in enumerate((("ddtree", "ddtree, nodes"), ("dflash", "dflash, drafted tokens"))):
        sized = [cell for cell in cells if is_sized(method)(cell)]
        sized.sort(key=lambda cell: size_of(cell.setting) or 0)
        if sized:
            root = 1 if method == "dflash" else 0  # a block's first token is the root, which is not drafted
            sizes = [(size_of(cell.setting) or 0) - root for cell in sized]
            measured += sizes
            axes.plot(sizes, [cell.speedup for cell in sized], color=COLORS[i], marker=MARKERS[i], label=name)
            if all(cell.low is not None for cell in sized):
                lows = [cell.low or 0.0 for cell in sized]
                highs = [cell.high or 0.0 for cell in sized]
                axes.fill_between(sizes, lows, highs, color=COLORS[i], alpha=0.15, linewidth=0)
    for i, (name, dashes) in enumerate((("ddtree auto", (0, (6, 2))), ("dflash auto", (0, (1, 2))))):
        auto = next((cell for cell in cells if cell.setting == name), None)
        if auto is not None:
            axes.axhline(auto.speedup, color=COLORS[i], linestyle=dashes, linewidth=1.6, label=name)
    axes.axhline(1.0, color="#555555", linewidth=0.8)
    axes.set_xscale("log", base=2)
    label_logarithmic(axes.xaxis, measured or None)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("drafted tokens a round")
    axes.set_ylabel("speedup against mlx_lm")
    axes.legend()


def acceptance_lengths(axes: Axes, cells: list[Cell]) -> None:
    """How many tokens rounds bring: the longest block, the best tree, auto."""
    auto = next((cell for cell in cells if cell.setting == "ddtree auto"), None)
    candidates = (trained_block(cells), fastest(cells, is_sized("ddtree")), auto)
    shown = [cell for cell in candidates if cell and cell.accepted]
    width = 0.8 / max(len(shown), 1)
    seen, longest = 1, 1
    for i, cell in enumerate(shown):
        total = sum(cell.accepted.values())
        shares = {nodes + 1: count / total for nodes, count in cell.accepted.items()}
        seen = max(seen, *(tokens for tokens, share in shares.items() if share >= SEEN))
        longest = max(longest, *shares)
        axes.bar(
            [tokens + (i - (len(shown) - 1) / 2) * width for tokens in shares],
            list(shares.values()),
            width,
            color=COLORS[i],
            hatch=HATCHES[i],
            edgecolor="white",
            linewidth=0.3,
            label=f"{cell.setting}: mean {cell.tau:.2f}",
        )
    label_shares(axes)
    axes.set_xlim(0.4, seen + 0.6)
    rest = f" (up to {longest}; longer than {seen} are below {SEEN:.1%} each)" if longest > seen else ""
    axes.set_xlabel(f"tokens a round{rest}")
    axes.set_ylabel("share of rounds")
    axes.legend()


def time_by_stage(axes: Axes, cells: list[Cell]) -> None:
    """Milliseconds a token of every setting that drafts, and plain decoding's."""
    shown = staged(cells)[::-1]
    left = [0.0] * len(shown)
    for i, stage in enumerate(STAGES):
        values = [cell.stages[stage] for cell in shown]
        names = [cell.setting for cell in shown]
        axes.barh(names, values, left=left, color=COLORS[i], hatch=HATCHES[i], edgecolor="white", label=stage)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_xlabel("milliseconds a token")
    axes.grid(False, axis="y")
    axes.legend(loc="lower right")


def staged(cells: Sequence[Cell]) -> list[Cell]:
    """The settings whose stages were timed."""
    return [cell for cell in cells if cell.stages and method_of(cell.setting) != "mlx_lm"]

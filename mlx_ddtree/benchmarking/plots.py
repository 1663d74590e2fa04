"""A run's figures as pictures; needs matplotlib, the extra `plots`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_ddtree.benchmarking.report import place_title, trained_block
from mlx_ddtree.benchmarking.settings import method_of, size_of
from mlx_ddtree.benchmarking.summary import STAGES, Cell, Summary, fastest, is_sized
from mlx_ddtree.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, and hatches and markers, so that nothing is said by colour alone.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
HATCHES = ("", "///", "\\\\\\", "xx")
COLUMNS = 3


def draw_plots(summary: Summary, folder: Path, prefix: str = "", kind: str = "svg") -> list[Path]:
    """Speedup against budget, acceptance lengths, time by stage: a file each in `folder`.

    kind: 'svg' or 'png'.
    """
    matplotlib = _matplotlib()
    drawings: dict[str, Callable[[Axes, list[Cell]], None]] = {
        "speedup": speedup_by_budget,
        "acceptance": acceptance_lengths,
        "stages": time_by_stage,
    }
    files = []
    with matplotlib.rc_context(
        {"svg.hashsalt": "mlx_ddtree", "svg.fonttype": "none", "font.size": 9, "axes.axisbelow": True}
    ):
        for name, draw in drawings.items():
            file = folder / f"{prefix}{name}.{kind}"
            figure = panels(summary, draw)
            figure.savefig(file, metadata={"Date": None} if kind == "svg" else None, dpi=120)
            files.append(file)
    return files


def _matplotlib() -> Any:
    try:
        import matplotlib  # noqa: PLC0415 (optional)
    except ImportError:
        raise MissingExtraError("a report's plots", "matplotlib", "plots", ", or add --plots none") from None
    return matplotlib


def panels(summary: Summary, draw: Callable[[Axes, list[Cell]], None]) -> Figure:
    """A panel for every data set and temperature."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (optional)

    places = summary.places
    columns = min(COLUMNS, len(places))
    rows = -(-len(places) // columns)
    wide = 6.5 if columns == 1 else 4.2 * columns
    figure = Figure(figsize=(wide, 3.4 * rows), layout="constrained")
    for i, (data, temp) in enumerate(places):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(place_title(data, temp))
        axes.grid(True, color="#dddddd", linewidth=0.6)
        draw(axes, summary.at(data, temp))
    return figure


def speedup_by_budget(axes: Axes, cells: list[Cell]) -> None:
    """Lines over the sizes that were fixed, with their 95 % intervals; level lines for those that choose themselves."""
    for i, (method, name) in enumerate((("ddtree", "ddtree, nodes"), ("dflash", "dflash, drafted tokens"))):
        sized = [cell for cell in cells if is_sized(method)(cell)]
        sized.sort(key=lambda cell: size_of(cell.setting) or 0)
        if sized:
            root = 1 if method == "dflash" else 0  # a block's first token is the root, which is not drafted
            sizes = [(size_of(cell.setting) or 0) - root for cell in sized]
            axes.plot(sizes, [cell.speedup for cell in sized], color=COLORS[i], marker=MARKERS[i], label=name)
            if all(cell.low is not None for cell in sized):
                lows = [cell.low or 0.0 for cell in sized]
                highs = [cell.high or 0.0 for cell in sized]
                axes.fill_between(sizes, lows, highs, color=COLORS[i], alpha=0.15, linewidth=0)
    for i, name in enumerate(("ddtree auto", "dflash auto")):
        auto = next((cell for cell in cells if cell.setting == name), None)
        if auto is not None:
            axes.axhline(auto.speedup, color=COLORS[i], linestyle="--", linewidth=1.2, label=name)
    axes.axhline(1.0, color="#555555", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("drafted tokens a round")
    axes.set_ylabel("speedup against mlx_lm")
    axes.legend(fontsize=8)


def acceptance_lengths(axes: Axes, cells: list[Cell]) -> None:
    """How many tokens rounds bring: the longest block, the best tree, auto."""
    auto = next((cell for cell in cells if cell.setting == "ddtree auto"), None)
    candidates = (trained_block(cells), fastest(cells, is_sized("ddtree")), auto)
    shown = [cell for cell in candidates if cell and cell.accepted]
    width = 0.8 / max(len(shown), 1)
    for i, cell in enumerate(shown):
        total = sum(cell.accepted.values())
        places = [nodes + 1 + (i - (len(shown) - 1) / 2) * width for nodes in cell.accepted]
        axes.bar(
            places,
            [count / total for count in cell.accepted.values()],
            width,
            color=COLORS[i],
            hatch=HATCHES[i],
            edgecolor="white",
            linewidth=0.3,
            label=f"{cell.setting}: mean {cell.tau:.2f}",
        )
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("tokens a round")
    axes.set_ylabel("share of rounds")
    axes.legend(fontsize=8)


def time_by_stage(axes: Axes, cells: list[Cell]) -> None:
    """Milliseconds a token of every setting that drafts, and plain decoding's."""
    shown: Sequence[Cell] = [c for c in cells if c.stages and method_of(c.setting) != "mlx_lm"][::-1]
    left = [0.0] * len(shown)
    for i, stage in enumerate(STAGES):
        values = [cell.stages[stage] for cell in shown]
        names = [cell.setting for cell in shown]
        axes.barh(names, values, left=left, color=COLORS[i], hatch=HATCHES[i], edgecolor="white", label=stage)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("milliseconds a token")
    axes.legend(fontsize=8)

"""Draw the tables of docs/*.md that docs/long-context.md shows as pictures.

Usage: python studies/prompts/long_context_plots.py [--out docs/long-context]      (needs matplotlib)

The tables are the record of what was measured, so pictures and pages cannot disagree.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlx_ddtree.benchmarking.plot_style import COLORS, HATCHES, MARKERS, PAGE, label_logarithmic, plot_style

DOCS = Path(__file__).parents[2] / "docs"


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the table in docs/`page`.md whose header begins with `first`; empty first cells repeat the last."""
    lines = iter((DOCS / f"{page}.md").read_text(encoding="utf-8").splitlines())
    next(line for line in lines if line.startswith(f"| {first} |"))
    next(lines)
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        rows.append([cells[0] or rows[-1][0], *cells[1:]])
    return rows


def number(cell: str) -> float:
    return float(cell.replace(",", "").rstrip(" %"))


def curves(axes: Axes, groups: dict[str, tuple[list[float], list[float]]], title: str, unit: str) -> None:
    for (name, (x, y)), color, marker in zip(groups.items(), COLORS, MARKERS, strict=False):
        axes.plot(x, y, color=color, marker=marker, label=name)
    axes.set(xscale="log", yscale="log", xlabel="tokens of context", ylabel=unit, title=title)
    label_logarithmic(axes.yaxis)
    label_logarithmic(axes.xaxis, {place for x, _ in groups.values() for place in x})
    axes.xaxis.set_major_formatter(lambda place, _: f"{place / 1024:.0f}k")
    axes.legend()


def rounds() -> Figure:
    """Verifications and memory with the whole cache, in part, and with pages on disk."""
    figure = Figure(figsize=(PAGE, 3.4), layout="constrained")
    rows = table("icecache", "context | cache")
    for axes, column, title, unit in zip(
        figure.subplots(1, 3),
        (2, 3, 5),
        ("a row", "a tree of 16 rows", "caches"),
        ("milliseconds", "milliseconds", "MiB in memory"),
        strict=True,
    ):
        groups = {}
        for kind in ("full", "paged", "on disk"):
            mine = [row for row in rows if row[1] == kind]
            groups[kind] = [number(row[0]) for row in mine], [number(row[column]) for row in mine]
        curves(axes, groups, title, unit)
    return figure


def drafts() -> Figure:
    """A draft by the length of the context and the drafter's window."""
    lines = (DOCS / "draft_window.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("context  window"))
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines[start + 2 :]:
        if line == "```":
            break
        context, window, milliseconds = line.split()[:3]
        x, y = groups.setdefault("no window" if window == "none" else f"window {window}", ([], []))
        x.append(number(context))
        y.append(number(milliseconds))
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    curves(figure.subplots(), groups, "a draft", "milliseconds")
    return figure


def needles() -> Figure:
    """Kept needles by scorer and kind of text, at the two keep ratios."""
    rows = table("prefill_compression", "scorer | 0.2 code")
    figure = Figure(figsize=(PAGE, 3.6), layout="constrained")
    for axes, first, keep in zip(figure.subplots(1, 2, sharey=True), (1, 4), ("0.2", "0.3"), strict=True):
        for i, kind in enumerate(("code", "prose", "repeated")):
            places = [place + 0.27 * i for place in range(len(rows))]
            kept = [number(row[first + i]) for row in rows]
            axes.barh(places, kept, 0.25, color=COLORS[i], hatch=HATCHES[i], edgecolor="white", label=kind)
        axes.set_yticks([place + 0.27 for place in range(len(rows))], [row[0] for row in rows])
        axes.set(title=f"keep {keep}", xlabel="needles kept, %", xlim=(0, 100))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right")
    return figure


def pages() -> Figure:
    """Attention that pages of a budget catch."""
    rows = table("icecache_index", "pages | middle 64")
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, (column, budget) in enumerate(((1, 64), (2, 256))):
        places = [place + 0.4 * i for place in range(len(rows))]
        caught = [number(row[column]) for row in rows]
        look = {"color": COLORS[i], "hatch": HATCHES[i], "edgecolor": "white", "label": f"{budget} tokens"}
        axes.barh(places, caught, 0.38, **look)
    axes.set_yticks([place + 0.2 for place in range(len(rows))], [row[0] for row in rows])
    axes.set(xlabel="share of the attention between sinks and window", xlim=(0, 1))
    axes.legend(loc="lower right")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS / "long-context", help="folder of the pictures")
    folder = parser.parse_args().out
    folder.mkdir(exist_ok=True)
    with plot_style():
        for draw in (rounds, drafts, needles, pages):
            draw().savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

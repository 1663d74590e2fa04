"""Plots that a person can read on a page: letters large enough, axes labelled all along, nothing drawn for bars nobody sees."""

from dataclasses import replace

import pytest
from matplotlib.text import Text

from mlx_ddtree.benchmarking import plots
from mlx_ddtree.benchmarking.plot_style import COLORS, PAGE, SEEN, SIZE, apart, label_logarithmic, plot_style
from mlx_ddtree.benchmarking.summary import Cell, Summary

STAGES = {"draft": 1.0, "tree": 0.1, "verify": 2.0, "commit": 0.1}
DRAWINGS = [plots.speedup_by_budget, plots.acceptance_lengths, plots.time_by_stage]


def cell(setting, speedup, accepted, data="heldout"):
    low, high = 0.9 * speedup, 1.1 * speedup
    host, counts = {}, (8, 800, 5.0, 100.0, speedup, low, high, 8, 8)
    return Cell(data, 0.0, setting, *counts, STAGES, host, accepted)


@pytest.fixture(scope="module")
def summary():
    """A run of many settings, one of whose rounds was very long."""
    sized = {f"dflash {n}": {0: 40, n - 1: 40} for n in (4, 5, 6, 8, 12, 16)}
    sized |= {f"ddtree {n}": {0: 40, 6: 40} for n in (4, 6, 8, 12, 16, 32, 64)}
    cells = [cell("mlx_lm", 1.0, {}), cell("ar", 1.0, {0: 80}), *(cell(name, 2.0, sized[name]) for name in sized)]
    cells.append(cell("ddtree auto", 2.1, {0: 400, 7: 400, 31: 1}))
    return Summary({"model": "tiny", "settings": [c.setting for c in cells]}, cells, [])


def figures(summary):
    with plot_style():
        for draw in DRAWINGS:
            figure = plots.panels(summary, draw)
            figure.canvas.draw()
            yield draw, figure


def several(summary):
    """The same on three data sets, whose panels share the page's width."""
    cells = [replace(cell, data=data) for data in ("code", "sums", "chat") for cell in summary.cells]
    return Summary(summary.header, cells, [])


@pytest.mark.parametrize("many", [False, True])
def test_letters_are_large_enough_on_a_page(summary, many):
    for _, figure in figures(several(summary) if many else summary):
        assert figure.get_figwidth() <= PAGE
        assert {text.get_fontsize() >= SIZE for text in figure.findobj(Text) if text.get_text()} == {True}


def test_nothing_is_drawn_for_bars_nobody_sees(summary):
    (axes,) = next(figure for draw, figure in figures(summary) if draw is plots.acceptance_lengths).axes
    assert axes.get_xlim() == (0.4, 16.6)
    assert f"up to 32; longer than 16 are below {SEEN:.1%} each" in axes.get_xlabel()


def test_sizes_that_were_measured_are_labelled(summary):
    (axes,) = next(figure for draw, figure in figures(summary) if draw is plots.speedup_by_budget).axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["3", "4", "6", "8", "11", "15", "32", "64"]


@pytest.mark.parametrize(("low", "high", "least"), [(3, 60, 4), (40, 900, 4), (5, 12, 2)])
def test_logarithmic_axes_have_labels_all_along(low, high, least):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.plot([1, 2], [low, high])
    axes.set_yscale("log")
    label_logarithmic(axes.yaxis)
    places = [place for place in axes.yaxis.get_majorticklocs() if low <= place <= high]
    assert len(places) >= least
    assert all("10^" not in axes.yaxis.get_major_formatter()(place, 0) for place in places)


def test_labels_stay_apart():
    assert apart([4, 5, 6, 8, 3, 7, 64]) == [3, 4, 6, 8, 64]


def test_colours_stay_apart_for_the_colour_blind():
    """Machado and others' matrices for the two common kinds: no two of the colours in use come close."""
    kinds = {
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    }
    for matrix in kinds.values():
        seen = []
        for color in COLORS[:4]:
            parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            seen.append([sum(m * p for m, p in zip(row, parts, strict=True)) for row in matrix])
        for i, one in enumerate(seen):
            assert all(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 0.02 for other in seen[:i])

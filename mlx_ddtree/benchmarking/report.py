"""A run's figures as tables: text for the terminal, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

from mlx_ddtree.benchmarking.settings import STOCK, method_of, size_of
from mlx_ddtree.benchmarking.summary import Cell, Summary, best, is_sized
from mlx_ddtree.machine import describe

Table = list[dict[str, str]]


def detail(cells: Sequence[Cell]) -> Table:
    """Every setting on one data set at one temperature."""
    return [
        {
            "setting": cell.setting,
            "tau": f"{cell.tau:.2f}",
            "tok/s": f"{cell.tps:.0f}",
            "speedup": f"{cell.speedup:.2f}x",
            "95 %": interval(cell),
            "identical": identical(cell),
        }
        for cell in cells
    ]


def overview(summaries: Sequence[Summary]) -> Table:
    """A line for every model, data set and temperature, as the papers' tables have it: speedup / tau of the linear
    block the drafter was trained for, of the best tree, and of the tree that chooses itself."""
    rows = []
    for summary in summaries:
        for data, temp in summary.places:
            cells = summary.at(data, temp)
            stock = next(cell for cell in cells if cell.setting == STOCK)
            tree = best(cells, is_sized("ddtree"))
            compared = [cell for cell in cells if cell.identical is not None]
            rows.append(
                {
                    "model": summary.model,
                    "data": data,
                    "T": f"{temp:g}",
                    "prompts": str(stock.prompts),
                    "mlx_lm tok/s": f"{stock.tps:.0f}",
                    "dflash": both(trained_block(cells)),
                    "ddtree, best budget": both(tree) + (f" ({size_of(tree.setting)})" if tree else ""),
                    "ddtree auto": both(next((c for c in cells if c.setting == "ddtree auto"), None)),
                    "identical": f"{sum(c.identical or 0 for c in compared)}/{sum(c.compared for c in compared)}",
                }
            )
    return rows


def trained_block(cells: Sequence[Cell]) -> Cell | None:
    """The longest linear block that was measured."""
    blocks = [cell for cell in cells if is_sized("dflash")(cell)]
    return max(blocks, key=lambda cell: size_of(cell.setting) or 0, default=None)


def both(cell: Cell | None) -> str:
    return f"{cell.speedup:.2f}x / {cell.tau:.2f}" if cell else "-"


def interval(cell: Cell) -> str:
    if cell.low is None or cell.high is None or cell.setting == STOCK:
        return "-"
    return f"{cell.low:.2f}-{cell.high:.2f}"


def identical(cell: Cell) -> str:
    return "-" if cell.identical is None else f"{cell.identical}/{cell.compared}"


def matrix(summary: Summary) -> Table:
    """Speedups: a row for every setting, a column for every data set and temperature, their geometric mean."""
    rows = []
    for name in summary.header["settings"]:
        found = {(c.data, c.temp): c.speedup for c in summary.cells if c.setting == name}
        columns = {f"{data} T={temp:g}": f"{found[data, temp]:.2f}x" for data, temp in summary.places}
        rows.append({"setting": name} | columns | {"mean": f"{geometric_mean(found.values()):.2f}x"})
    return rows


def stages(cells: Sequence[Cell]) -> Table:
    """Milliseconds a token by stage."""
    return [
        {"setting": cell.setting} | {stage: f"{ms:.2f}" for stage, ms in cell.stages.items()}
        for cell in cells
        if cell.stages and method_of(cell.setting) != "ar"
    ]


def halves(summary: Summary) -> Table:
    rows = []
    for half in summary.halves:
        row = {"answers that repeat": half["repeats"], "repeated 4-grams": f"{half['repeated']:.0%}"}
        rows.append(row | {k: f"{v:.2f}" for k, v in half.items() if k not in ("repeats", "repeated")})
    return rows


def place(data: str, temp: float) -> str:
    return f"{data}, temperature {temp:g}"


def markdown(summaries: Sequence[Summary], plots: Sequence[Path], command: str, note: str = "") -> str:
    """The whole report.  plots: pictures, named as the report refers to them."""
    parts = ["# Benchmark report", f"Made by `{command}`; docs/benchmark.md says how to read it."]
    if note:
        parts.append(f"**{note}**")
    for summary in summaries:
        header = summary.header
        rest = f", {header['cool_down']:g} s of rest before every answer" if header["cool_down"] else ""
        parts.append(
            f"* **{summary.model}**, at most {header['max_tokens']} tokens{rest}: {describe(header['machine'])}"
        )
    parts += [
        "Speedup against stock `mlx_lm` on the same prompts in the same run / tokens a round:",
        markdown_table(overview(summaries)),
        *(f"![{plot.stem}]({plot.name})" for plot in plots),
    ]
    for summary in summaries:
        if len(summary.places) > 1:
            parts += [f"## {summary.model}: speedups", markdown_table(matrix(summary))]
        for data, temp in summary.places:
            cells = summary.at(data, temp)
            title = f"{summary.model}: {place(data, temp)}"
            parts += [
                f"## {title}",
                f"{cells[0].prompts} prompts, {cells[0].tokens} tokens.",
                markdown_table(detail(cells)),
            ]
            if table := stages(cells):
                parts += ["Milliseconds a token by stage:", markdown_table(table)]
        if summary.halves:
            about = "tau at temperature 0, by how much of an answer stands earlier in the text; *lookup* copies only:"
            parts += [f"## {summary.model}: repetition", about, markdown_table(halves(summary))]
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Table) -> str:
    head = list(rows[0])
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([row[key] for key in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(summaries: Sequence[Summary]) -> str:
    """The overview and every detail as `tabular`s with booktabs' rules, each under a comment."""
    parts = ["% needs \\usepackage{booktabs}", latex_table(overview(summaries))]
    for summary in summaries:
        for data, temp in summary.places:
            parts += [f"% {summary.model}: {place(data, temp)}", latex_table(detail(summary.at(data, temp)))]
    return "\n\n".join(parts) + "\n"


def latex_table(rows: Table) -> str:
    head = list(rows[0])
    lines = [[escape(row[key]) for key in head] for row in rows]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape, head)) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def escape(text: str) -> str:
    """For LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
}

"""A run's figures as tables: text for the terminal, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

from mlx_ddtree.benchmarking.settings import STOCK, method_of, size_of
from mlx_ddtree.benchmarking.summary import Cell, Summary, fastest, is_sized
from mlx_ddtree.machine import describe

Table = list[dict[str, str]]
STAGES_TITLE = (
    "Milliseconds a token by stage; of these *main* is processor time of the thread that decodes, and in *exposed* the "
    "device had nothing to do:"
)


def settings_table(cells: Sequence[Cell]) -> Table:
    """Every setting on one data set at one temperature."""
    return [
        {
            "setting": cell.setting,
            "tau": f"{cell.tau:.2f}",
            "tok/s": f"{cell.tps:.0f}",
            "speedup": f"{cell.speedup:.2f}x",
            "95 %": interval_text(cell),
            "identical": identical_text(cell),
        }
        for cell in cells
    ]


def overview_table(summaries: Sequence[Summary]) -> Table:
    """A line for every model, data set and temperature, as the papers' tables have it: speedup / tau of the linear
    block the drafter was trained for, of the best tree, and of the tree that chooses itself."""
    rows = []
    for summary in summaries:
        for data, temp in summary.places:
            rows.append(_overview_row(summary, data, temp))
    return rows


def _overview_row(summary: Summary, data: str, temp: float) -> dict[str, str]:
    cells = summary.at(data, temp)
    stock = next(cell for cell in cells if cell.setting == STOCK)
    automatic = next((cell for cell in cells if cell.setting == "ddtree auto"), None)
    tree = fastest(cells, is_sized("ddtree"))
    tree_text = speedup_and_tau(tree)
    if tree is not None:
        tree_text += f" ({size_of(tree.setting)})"
    compared = [cell for cell in cells if cell.identical is not None]
    identical = sum(cell.identical or 0 for cell in compared)
    return {
        "model": summary.model,
        "data": data,
        "T": f"{temp:g}",
        "prompts": str(stock.prompts),
        "mlx_lm tok/s": f"{stock.tps:.0f}",
        "dflash": speedup_and_tau(trained_block(cells)),
        "ddtree, best budget": tree_text,
        "ddtree auto": speedup_and_tau(automatic),
        "identical": f"{identical}/{sum(cell.compared for cell in compared)}",
    }


def trained_block(cells: Sequence[Cell]) -> Cell | None:
    """The longest linear block that was measured."""
    blocks = [cell for cell in cells if is_sized("dflash")(cell)]
    return max(blocks, key=lambda cell: size_of(cell.setting) or 0, default=None)


def speedup_and_tau(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return f"{cell.speedup:.2f}x / {cell.tau:.2f}"


def interval_text(cell: Cell) -> str:
    if cell.low is None or cell.high is None or cell.setting == STOCK:
        return "-"
    return f"{cell.low:.2f}-{cell.high:.2f}"


def identical_text(cell: Cell) -> str:
    if cell.identical is None:
        return "-"
    return f"{cell.identical}/{cell.compared}"


def speedup_table(summary: Summary) -> Table:
    """Speedups: a row for every setting, a column for every data set and temperature, their geometric mean."""
    rows = []
    for name in summary.header["settings"]:
        found = {(cell.data, cell.temp): cell.speedup for cell in summary.cells if cell.setting == name}
        columns = {f"{data} T={temp:g}": f"{found[data, temp]:.2f}x" for data, temp in summary.places}
        rows.append({"setting": name} | columns | {"mean": f"{geometric_mean(found.values()):.2f}x"})
    return rows


def stage_table(cells: Sequence[Cell]) -> Table:
    """Milliseconds a token by stage, and the host's where a run has them: they are a part of the stages."""
    return [
        {"setting": cell.setting} | {part: f"{ms:.2f}" for part, ms in (cell.stages | cell.host).items()}
        for cell in cells
        if cell.stages and method_of(cell.setting) != "ar"
    ]


def repetition_table(summary: Summary) -> Table:
    """Acceptance lengths on the answers that repeat less and more than the median."""
    rows = []
    for half in summary.halves:
        row = {"answers that repeat": half["repeats"], "repeated 4-grams": f"{half['repeated']:.0%}"}
        rows.append(row | {k: f"{v:.2f}" for k, v in half.items() if k not in ("repeats", "repeated")})
    return rows


def place_title(data: str, temp: float) -> str:
    """A data set at a temperature, as a heading."""
    return f"{data}, temperature {temp:g}"


def markdown_report(summaries: Sequence[Summary], plots: Sequence[Path], command: str, note: str = "") -> str:
    """The whole report.  plots: pictures, named as the report refers to them."""
    parts = ["# Benchmark report", f"Made by `{command}`; docs/benchmark.md says how to read it."]
    if note:
        parts.append(f"**{note}**")
    parts += [_conditions(summary) for summary in summaries]
    parts.append("Speedup against stock `mlx_lm` on the same prompts in the same run / tokens a round:")
    parts.append(markdown_table(overview_table(summaries)))
    parts += [f"![{plot.stem}]({plot.name})" for plot in plots]
    for summary in summaries:
        parts += _run_sections(summary)
    return "\n\n".join(parts) + "\n"


def _conditions(summary: Summary) -> str:
    """What a run was measured with and on."""
    header = summary.header
    rest = ""
    if header["cool_down"]:
        rest = f", {header['cool_down']:g} s of rest before every answer"
    return f"* **{summary.model}**, at most {header['max_tokens']} tokens{rest}: {describe(header['machine'])}"


def _run_sections(summary: Summary) -> list[str]:
    """The sections of one run: speedups by place, then each place in detail, then repetition."""
    parts = []
    if len(summary.places) > 1:
        parts += [f"## {summary.model}: speedups", markdown_table(speedup_table(summary))]
    for data, temp in summary.places:
        cells = summary.at(data, temp)
        parts.append(f"## {summary.model}: {place_title(data, temp)}")
        parts.append(f"{cells[0].prompts} prompts, {cells[0].tokens} tokens.")
        parts.append(markdown_table(settings_table(cells)))
        stages = stage_table(cells)
        if stages:
            parts += [STAGES_TITLE, markdown_table(stages)]
    if summary.halves:
        about = "tau at temperature 0, by how much of an answer stands earlier in the text; *lookup* copies only:"
        parts += [f"## {summary.model}: repetition", about, markdown_table(repetition_table(summary))]
    return parts


def markdown_table(rows: Table) -> str:
    head = list(rows[0])
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([row[key] for key in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex_report(summaries: Sequence[Summary]) -> str:
    """The overview and every detail as `tabular`s with booktabs' rules, each under a comment."""
    parts = ["% needs \\usepackage{booktabs}", latex_table(overview_table(summaries))]
    for summary in summaries:
        for data, temp in summary.places:
            parts += [
                f"% {summary.model}: {place_title(data, temp)}",
                latex_table(settings_table(summary.at(data, temp))),
            ]
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
    """Text for LaTeX, its special characters taken literally."""
    return "".join(_LATEX.get(character, character) for character in text)


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
}

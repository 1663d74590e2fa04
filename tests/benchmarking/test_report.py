"""Tables and pictures: complete, well-formed, the same every time."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.benchmarking.plots import draw_plots
from mlx_ddtree.benchmarking.prompts import PUBLISHED
from mlx_ddtree.benchmarking.report import (
    escape,
    latex_report,
    latex_table,
    markdown_report,
    overview_table,
    speedup_table,
    stage_table,
)
from mlx_ddtree.benchmarking.settings import PUBLISHED_BUDGETS
from mlx_ddtree.benchmarking.summary import STAGES, summarise
from mlx_ddtree.errors import install_command
from mlx_ddtree.programs.benchmark import main

from .runs import HEADER, SETTINGS, group, line, write_run


@pytest.fixture
def run(tmp_path):
    groups = [
        group({"mlx_lm": 3.0 + i, "ddtree 8": 1.0}, data=data, temp=temp, index=i)
        for data in ("gsm8k", "mt-bench")
        for temp in (0.0, 1.0)
        for i in range(4)
    ]
    return write_run(tmp_path / "run.jsonl", groups)


def test_markdown_has_every_cell(run):
    summary = summarise(run)
    text = markdown_report([summary], [run.with_name("speedup.svg")], "the command", "a busy machine")
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, re.M)
    for table in tables:
        assert len({row.count("|") for row in table.splitlines()}) == 1
    assert (
        sum(row.startswith(f"| {name} ") for table in tables for row in table.splitlines() for name in SETTINGS)
        >= 4 * 4
    )
    assert all(part in text for part in ("**a busy machine**", "![speedup](speedup.svg)", "the command", "T=1"))
    assert f"mlx {HEADER['machine']['mlx']}" in text


def test_the_stages_have_the_hosts_time_where_a_run_measured_it(tmp_path):
    older = group({})
    newer = [line | {"host": {"main": 0.22, "exposed": 0.11}} for line in older]
    for lines, columns in ((older, set()), (newer, {"main", "exposed"})):
        cells = summarise(write_run(tmp_path / f"{len(columns)}.jsonl", [lines])).cells
        for row in stage_table(cells):
            assert set(row) - {"setting", *STAGES} == columns
            assert not columns or (row["main"], row["exposed"]) == ("20.00", "10.00")


def test_the_overview_is_the_papers_table(run):
    rows = overview_table([summarise(run)])
    assert len(rows) == 4
    assert rows[0] == {
        "model": "tiny/model_1",
        "data": "gsm8k",
        "T": "0",
        "prompts": "4",
        "mlx_lm tok/s": "2",
        "dflash": "4.50x / 2.00",
        "ddtree, best budget": "4.50x / 2.00 (8)",
        "ddtree auto": "4.50x / 2.00",
        "identical": "12/12",
    }


def test_sixty_settings_make_sixty_rows(tmp_path):
    names = ["mlx_lm", "dflash 16", *(f"ddtree {n}" for n in PUBLISHED_BUDGETS)]
    runs = []
    for model in ("4b", "8b", "30b"):
        groups = [
            [line(name, 1.0, data=data, temp=temp) for name in names] for data in PUBLISHED for temp in (0.0, 1.0)
        ]
        runs.append(
            summarise(write_run(tmp_path / f"{model}.jsonl", groups, HEADER | {"settings": names, "model": model}))
        )
    rows = overview_table(runs)
    assert len({(row["model"], row["data"], row["T"]) for row in rows}) == len(rows) == 60


def test_the_matrix_ends_in_geometric_means(run):
    rows = {row["setting"]: row for row in speedup_table(summarise(run))}
    assert list(rows["ddtree 8"]) == ["setting", "gsm8k T=0", "gsm8k T=1", "mt-bench T=0", "mt-bench T=1", "mean"]
    assert rows["ddtree 8"]["mean"] == "4.50x" and rows["mlx_lm"]["mean"] == "1.00x"


def test_latex_tables_are_rectangular(run):
    text = latex_report([summarise(run)])
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 5
    for body in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.S):
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in body.splitlines()}) == 1
    assert r"tiny/model\_1" in text and r"95 \%" in text


@given(st.text("ab\\&%$#_{}~", max_size=12))
def test_escaped_text_can_be_read_back(text):
    escaped = escape(text)
    assert not re.search(r"(?<!\\)[&%$#_~]", escaped)
    back = escaped.replace(r"\textbackslash{}", "\0").replace(r"\textasciitilde{}", "~")
    assert re.sub(r"\\(.)", r"\1", back).replace("\0", "\\") == text
    assert latex_table([{"a": text, "b": "1"}]).count(" & ") == 2


def test_plots_are_the_same_every_time(run, tmp_path):
    summary = summarise(run)
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files = draw_plots(summary, tmp_path / name)
        assert [file.name for file in files] == ["speedup.svg", "acceptance.svg", "stages.svg"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    for content in contents[0]:
        text = " ".join(t.text or "" for t in ElementTree.fromstring(content).iter("{http://www.w3.org/2000/svg}text"))
        assert "gsm8k, temperature 0" in text and "mt-bench, temperature 1" in text


def test_report_writes_everything_into_its_folder(run, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["report", str(run), "--report", str(folder), "--note", "a note", "--plots", "png"]) == 0
    names = {file.name for file in folder.iterdir()}
    assert names == {"report.md", "report.tex", "summary.json", "speedup.png", "acceptance.png", "stages.png"}
    text = (folder / "report.md").read_text()
    assert "**a note**" in text and f"`mlx_ddtree.benchmark report {run} --report {folder} --plots png`" in text
    assert "gsm8k, temperature 1: 4 prompts" in capsys.readouterr().out


def test_two_models_share_a_report(run, tmp_path):
    other = write_run(tmp_path / "other.jsonl", [group({})], HEADER | {"model": "other"})
    assert main(["report", str(run), str(other), "--report", str(tmp_path / "out")]) == 0
    names = {file.name for file in (tmp_path / "out").glob("*.svg")}
    assert {"tiny--model_1-speedup.svg", "other-speedup.svg"} <= names


def test_two_runs_of_one_model_keep_their_plots(run, tmp_path):
    other = write_run(tmp_path / "other.jsonl", [group({})], HEADER | {"max_tokens": 7})
    assert main(["report", str(run), str(other), "--report", str(tmp_path / "out")]) == 0
    names = {file.name for file in (tmp_path / "out").glob("*.svg")}
    assert {"tiny--model_1-1-speedup.svg", "tiny--model_1-2-speedup.svg"} <= names
    text = (tmp_path / "out" / "report.md").read_text()
    assert all(f"({name})" in text for name in names)


def test_without_matplotlib_it_says_which_extra(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main(["report", str(run), "--report", str(tmp_path / "out")]) == 2
    assert install_command("plots") in capsys.readouterr().err
    assert main(["report", str(run), "--report", str(tmp_path / "out"), "--plots", "none"]) == 0


def test_an_empty_run_is_named(tmp_path, capsys):
    assert main(["report", str(write_run(tmp_path / "empty.jsonl", []))]) == 2
    assert "nothing was measured" in capsys.readouterr().err

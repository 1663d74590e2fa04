"""Every study runs, on its smallest input: what made the tables of docs/ can make them again."""

import ast
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from mlx_ddtree.hub.names import DEMO

from ..metal_host import missing_compiler

ROOT = Path(__file__).parents[2]
STUDIES = sorted(str(file.relative_to(ROOT / "studies")) for file in (ROOT / "studies").glob("*/*.py"))
TARGET = str(Path(str(DEMO)) / "target")
TOKENIZER = f"{TARGET}/tokenizer.json"
PROMPTS = str(Path(str(DEMO)) / "heldout_prompts.jsonl")
slow = pytest.mark.slow
needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium takes the photographs")
needs_clang = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))

ANSWERS = Path(__file__).parent / "answers.jsonl"
"""A dozen made-up answers."""

# Command lines, with a folder of the test's own in place of TMP; and a word that must be printed.
RUNS = [
    pytest.param("agents/try_clients.py --only 'openai and anthropic'", "yes"),
    pytest.param("budget/host_steps.py --repeats 1 --vocab 1100", "planner learn"),
    pytest.param(f"budget/memory_walk.py --memory {ANSWERS} --held {ANSWERS} --answers 0 6", "tree 32"),
    pytest.param("budget/parity_report.py --count 1 --max-tokens 8 --arithmetic rounded", "exact"),
    pytest.param(f"budget/random_leaf_gain.py {PROMPTS} --count 2 --max-tokens 16", "nodes"),
    pytest.param("code/api_page.py --check", "public names, each on the page"),
    pytest.param("code/planted_faults.py --check", ", 0 complaints"),
    pytest.param("code/planted_faults.py named", "1 of 1 planted faults killed", marks=slow),
    pytest.param("code/round_trace.py --count 2 --tokens 32", "imports that run up"),
    pytest.param("drafters/verdicts.py", "refused"),
    pytest.param(
        f"drafters/markov_head.py {PROMPTS} --train 1 --test 1 --max-tokens 12 --steps 2 --rank 4", "| whole |"
    ),
    pytest.param("grammar/json_speed.py --count 1 --max-tokens 12 --forms record --ways ar ddtree-8", "forced"),
    pytest.param(
        "kernels/deft_reads.py reads time answers --nodes 16 --contexts 64 --length 128 --tokens 8 --n 2", "flatten"
    ),
    pytest.param("kernels/graph_time.py --layers 2 --rows 4 --repeats 1", "both kernels"),
    pytest.param("kernels/hybrid_verification.py --nodes 4 --heads 4 --key-heads 2 --dim 32 --repeats 1", "replay"),
    pytest.param("kernels/kernel_bytes.py --contexts 128 --nodes 4 --models-context 64", "saved", marks=needs_clang),
    pytest.param("kernels/kernel_bytes_delta.py --nodes 4 --heads 4 --key-heads 2 --dim 32", "fork", marks=needs_clang),
    pytest.param("kernels/kernel_bytes_qmm.py topk", "topk", marks=[slow, needs_clang]),
    pytest.param("kernels/qmm_expectations.py", "M4 Max"),
    pytest.param("pictures/notebook.py --output TMP", "notebook-dark.png", marks=[slow, needs_chromium]),
    pytest.param("pictures/draft_tree.py --max-tokens 32 --output TMP/tree.svg", "accepted"),
    pytest.param(
        "machines/blas_threads.py --threads 1 --blocktimes 0 --busy 0 --count 1 --tokens 8", "stock tok/s", marks=slow
    ),
    pytest.param("machines/distributed_model.py", "Kimi"),
    pytest.param("pages/dci_recall.py --points 256", "subspace"),
    pytest.param(
        "pages/icecache_agreement.py tokens --context 128 --steps 4 --count 1 --setting '{\"budget\":32}'", "32"
    ),
    pytest.param(
        "pages/icecache_agreement.py trees --context 128 --steps 4 --count 1 --setting '{\"budget\":32}'", "32"
    ),
    pytest.param("pages/icecache_times.py attention --contexts 256 --budget 64 --repeats 1", "256"),
    pytest.param("pages/icecache_times.py rounds --contexts 256 --budget 64 --repeats 1 --offload TMP", "on disk"),
    pytest.param("pages/page_quality.py --demo --lengths 192", "middle"),
    pytest.param("prompts/first_token.py first --tokens 40 --repeats 1", "stock ms"),
    pytest.param("prompts/first_token.py rounds --contexts 64 --nodes 4 --repeats 1", "target's own"),
    pytest.param("prompts/block_mass.py demo --characters 600", "alpha"),
    pytest.param("prompts/draft_window.py time --contexts 512", "window"),
    pytest.param("prompts/draft_window.py acceptance --count 1 --lengths 0", "question", marks=slow),
    pytest.param("prompts/long_context_plots.py --out TMP", ""),
    pytest.param(f"prompts/long_context_recall.py TMP {TOKENIZER} --seq 512 --rows 2", ""),
    pytest.param("prompts/needle_report.py demo --lengths 1024 --seeds 1 --depths 0.5", "lexical"),
    pytest.param(
        f"prompts/prefill_answers.py --model {TARGET} --tokens 200 --seeds 1 --keep 0.5 --depths 0.5", "whole prompt"
    ),
    pytest.param("prompts/cached_first_token.py --tokens 200 --new 20 --targets qwen3_5", "after a restart"),
    pytest.param('prompts/prefix_reuse.py --families qwen3_5 --answer 2 --cases "next turn"', "twice"),
    pytest.param("prompts/prefill_times.py --tokens 256 --repeats 1 --scorer lexical", "dense"),
    pytest.param("targets/every_model.py llama llama4", "2 tree"),
    pytest.param("terminal/screenshots.py models --out TMP", "models: "),
    pytest.param(f"targets/real_checkpoint.py {TARGET} --max-tokens 8 --long 64", "0 of 20 texts differ"),
]


def modules_at_the_top(file):
    """The names of the modules that a study imports, in order."""
    for node in ast.parse((ROOT / "studies" / file).read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("study", STUDIES)
def test_the_package_is_imported_before_mlx(study):
    """It loads a fast BLAS, which must stand before MLX does: without it products take 50 times as long."""
    rooms = [name.split(".")[0] for name in modules_at_the_top(study)]
    first = next((room for room in rooms if room in ("mlx", "mlx_lm", "mlx_ddtree")), "mlx_ddtree")
    assert first == "mlx_ddtree"


def run(command, monkeypatch, tmp_path, more=()):
    """A study as its command line runs it, in this process; more: arguments that may hold spaces."""
    file, *arguments = [*shlex.split(command.replace("TMP", str(tmp_path))), *more]
    monkeypatch.setattr(sys, "path", [str((ROOT / "studies" / file).parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(ROOT / "studies" / file), *arguments])
    runpy.run_path(str(ROOT / "studies" / file), run_name="__main__")


@pytest.mark.parametrize("study", STUDIES)
def test_says_what_it_does(study, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run(f"{study} --help", monkeypatch, tmp_path)
    assert end.value.code == 0
    assert f"studies/{study}" in capsys.readouterr().out


@pytest.mark.parametrize("command, word", RUNS)
def test_runs(command, word, monkeypatch, tmp_path, capfd):
    run(command, monkeypatch, tmp_path)
    assert word in capfd.readouterr().out


def test_the_hosts_time_is_found_in_all_its_parts(monkeypatch, tmp_path, capsys):
    """A forward under another name would be missing from the graphs, and a wait in another place from the waits."""
    run(
        "budget/host_time.py --layers 3 --rounds 4 --repeats 1 --verbose",
        monkeypatch,
        tmp_path,
        ["--methods", "ar", "ddtree 4"],
    )
    lines = capsys.readouterr().out.splitlines()
    head = lines[0].split()[2:-1]
    figures = {}
    for method in ("ar", "ddtree 4"):
        [line] = [line for line in lines if f"  {method}  " in line]
        figures[method] = dict(zip(head, map(float, line.partition(method)[2].split()[:-1]), strict=True))
    for found in figures.values():
        assert all(found[column] > 0 for column in ("wall", "main", "graph"))
        assert found["exposed"] + found["sending"] <= found["wall"]
        assert found["graph"] <= found["main"]
    assert figures["ddtree 4"]["graph"] > figures["ar"]["graph"]
    assert 0 < figures["ddtree 4"]["waits"] <= 2


def test_simulated_machines_play_recorded_drafts(monkeypatch, tmp_path, capsys):
    run(f"budget/record_drafts.py {PROMPTS} TMP/record.npz --count 1 --max-tokens 8", monkeypatch, tmp_path)
    run("budget/simulate_machines.py TMP/record.npz", monkeypatch, tmp_path)
    assert "M5 4-bit" in capsys.readouterr().out


def test_a_layout_is_trained_and_its_confidence_asked(monkeypatch, tmp_path, capsys):
    training = "--minutes 0.001 --layers 1 --rank 4 --batch-size 2 --anchors 2 --mask-token 6000 --layouts DSpark"
    measuring = "--test 2 --max-tokens 8 --temps 1"
    run(f"drafters/layout_gain.py {ANSWERS} {PROMPTS} TMP/gain {training} {measuring} --pools", monkeypatch, tmp_path)
    out = capsys.readouterr().out
    assert "| DSpark | 1 |" in out and "| whole | 1 |" in out
    run(f"drafters/confidence_gain.py TMP/gain/dspark {PROMPTS} --steps 1 {measuring}", monkeypatch, tmp_path)
    assert "| 1 | confidence |" in capsys.readouterr().out


def test_every_study_is_run():
    started = {command.values[0].split()[0] for command in RUNS}
    started |= {f"budget/{name}.py" for name in ("host_time", "record_drafts", "simulate_machines")}
    started |= {f"drafters/{name}.py" for name in ("layout_gain", "confidence_gain")}
    started.add("agents/stand_in.py")  # runs until it is stopped; try_clients.py starts it as well
    assert started == set(STUDIES)

"""The package on a Mac that is simulated: every branch that only Macs take, with kernels that are launched by their own text."""

import io
import json
import logging

import mlx.core as mx
import pytest

from mlx_ddtree import generate as generate_text
from mlx_ddtree import load, stream_generate
from mlx_ddtree.kernels.cases import typical_cases
from mlx_ddtree.kernels.choice import NO_KERNELS
from mlx_ddtree.machine import machine
from mlx_ddtree.programs import benchmark, chat, doctor, examining, generate
from mlx_ddtree.tuning import agree, alone, choose, identity
from mlx_ddtree.tuning.measure import profile_of

from . import families, helpers
from .metal_host import missing_compiler
from .server.running import make_engine, serving, started
from .simulated_mac import GIGABYTE, SYSCTL, mac

__all__ = ["mac"]
pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
PROMPT = [3, 14, 15, 9, 26, 5, 35]
PAIRS = {
    "4 bits": lambda: helpers.small_pair(bits=4),
    "hybrid": lambda: families.tiny_pair("qwen3_5"),
    "windows": lambda: families.tiny_pair("llama, windows"),
}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(choose, "SIZES", (4, 8))
    monkeypatch.setattr(choose, "CONTEXT", 20)
    monkeypatch.setattr(agree, "CHECKED", (4, 8))
    monkeypatch.setattr(alone, "TOGETHER", 1)
    monkeypatch.setattr(alone, "LONG_CONTEXT", 64)


@pytest.fixture(params=["dense", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("4 bits", "hybrid"))])
def folders(request, tmp_path):
    """A target's and a drafter's folder, as from the Hub."""
    kind = request.param
    pair = helpers.small_pair() if kind == "dense" else PAIRS[kind]()
    config = {"4 bits": {"quantization": {"group_size": 32, "bits": 4}}, "hybrid": families.FAMILIES["qwen3_5"]}
    helpers.save_target(tmp_path / "target", pair.target, **config.get(kind, {}))
    helpers.save_drafter(tmp_path / "drafter", pair.drafter)
    return ["--model", str(tmp_path / "target"), "--draft-model", str(tmp_path / "drafter")]


def said(pair, **how):
    return [t for r in stream_generate(pair, PROMPT, 12, **how) for t in r.tokens]


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("mode", ["auto", "on"])
def test_texts_are_those_of_plain_decoding(mac, kind, mode):
    pair = PAIRS[kind]()
    want = said(pair, method="ar")
    assert mac.launched == []
    pair.kernels = mode
    assert said(pair) == said(pair, tree_budget=6) == want
    assert {"topk_logprobs", "merge_attention"} <= set(mac.launched)
    assert (pair.target.kernels != NO_KERNELS) and bool(profile_of(pair).kernels[8]) == (mode == "on")
    assert mac.limit == 0 and 48 * GIGABYTE in mac.wired


ALIKE = [pytest.param(name, marks=pytest.mark.slow) for name in ("merge_attention", "head_topk", "topk_merge")]


@pytest.mark.parametrize("broken", ["verify_qmm", "tree_attention", *ALIKE])
def test_a_kernel_that_breaks_in_a_text_changes_no_token(mac, broken, caplog):
    pair = PAIRS["4 bits"]()
    want = said(pair, method="ar")
    pair.kernels = "on"
    profile_of(pair)
    mac.broken.add(broken)
    with caplog.at_level(logging.WARNING):
        assert said(pair, tree_budget=6) == want
    assert "cannot run here and is not used" in caplog.text


@pytest.mark.slow
def test_the_embedded_pair(mac):
    pair = load()
    want = said(pair, method="ar")
    assert said(pair) == want and profile_of(pair).complete


@pytest.mark.parametrize("kind", ["4 bits", pytest.param("hybrid", marks=pytest.mark.slow)])
def test_a_server_measures_wires_memory_for_its_life_and_answers(mac, kind):
    pair = PAIRS[kind]()
    pair.kernels = "on"
    want = generate_text(pair, "w3 w4 w5", 12, method="ar")
    with started(make_engine(lambda: pair, tree_budget=6)) as engine:
        assert pair.profile.complete and engine.measured == 1
        assert mac.limit == 48 * GIGABYTE
        mac.launched.clear()
        with serving(engine) as site:
            answer = site.openai.completions.create(model="demo", prompt="w3 w4 w5", max_tokens=12, temperature=0)
        assert answer.choices[0].text == want and "merge_attention" in mac.launched
    assert mac.limit == 0


def test_the_machine_is_described(mac):
    facts = machine()
    assert facts["chip"] == "Apple M3 Max" and facts["gpu"] == "applegpu_g15s" and facts["system"] == "macOS 15.1"
    assert facts["wired_limit"] == 48 * GIGABYTE


def test_a_wired_limit_that_the_user_has_set_counts(mac, monkeypatch):
    monkeypatch.setitem(SYSCTL, "iogpu.wired_limit_mb", "57344")
    assert machine()["wired_limit"] == 56 * GIGABYTE


def test_another_macos_or_other_kernels_are_measured_anew(mac, monkeypatch, folders):
    pair = load(folders[1], folders[3])
    paths = {identity.profile_path(pair, "auto")}
    monkeypatch.setattr("platform.mac_ver", lambda: ("26.0", ("", "", ""), "arm64"))
    paths.add(identity.profile_path(pair, "auto"))
    monkeypatch.setattr(identity, "metal_hash", lambda: "another")
    paths.add(identity.profile_path(pair, "auto"))
    monkeypatch.setattr(identity, "__version__", "0.0")
    paths.add(identity.profile_path(pair, "auto"))
    assert len(paths) == 4


def test_doctor_examines_kernels_and_a_pair(mac, folders, monkeypatch, capsys):
    monkeypatch.setattr(examining, "typical_cases", lambda launch: typical_cases(launch, mx.float16, 32))
    mac.broken.add("topk_merge")
    assert doctor.main(["--pair", "--json", *folders]) == 1
    report = json.loads(capsys.readouterr().out)
    results = {kernel["kernel"]: kernel for kernel in report["kernels"]}
    assert results["tree_attention"]["result"] == "ok"
    assert "Unable to build the pipeline" in results["topk_logprobs"]["result"]
    assert "\n" not in results["topk_logprobs"]["result"] and "a long report" in results["topk_logprobs"]["details"]
    assert report["pair"]["measured"] == 1 and report["pair"]["findings"]
    examining.show_report(report)
    shown = capsys.readouterr().out
    table, _, rest = shown.partition("head_topk, ")
    assert "a long report" not in table and "a long report" in rest


def test_generate_and_the_benchmark_are_programs_there_too(mac, folders, tmp_path, capsys):
    assert generate.main([*folders, "--prompt", "w3 w4 w5", "--max-tokens", "8"]) == 0
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "w3 w4 w5"}) + "\n")
    out = tmp_path / "run.jsonl"
    options = ["--data", str(prompts), "--count", "1", "--max-tokens", "8", "--output", str(out), "--plots", "none"]
    assert benchmark.main(["run", *folders, *options, "--budgets", "4", "auto"]) == 0
    assert out.exists()


def test_a_chat_says_there_what_it_says_without_kernels(mac, folders, monkeypatch, capsys):
    """Two messages of one conversation, so that the second answer stands behind a context that kernels have written."""
    told = {}
    for kernels in ("off", "on"):
        monkeypatch.setattr("sys.stdin", io.StringIO("w3 w4 w5\nw6 w7\n"))
        assert chat.main([*folders, "--kernels", kernels, "--max-tokens", "12"]) == 0
        told[kernels] = capsys.readouterr().out
        assert bool(mac.launched) == (kernels == "on")
    assert told["on"] == told["off"] and len(told["on"].splitlines()) >= 2
    assert "merge_attention" in mac.launched

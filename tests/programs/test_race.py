"""mlx_ddtree.benchmark race, with stand-ins for other programs in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files

import mlx_lm
import pytest

from mlx_ddtree.programs.benchmark import main

from ..benchmarking.race.stand_ins import MISBEHAVIOUR, adapter

TOKENS = 12
PROMPTS = [
    {"kind": "easy", "prompt": "Write a function that adds two numbers."},
    {"kind": "hard", "text": "Once upon a time"},
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("race") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return path


def race(capfd, *arguments):
    code = main(["race", "--max-tokens", str(TOKENS), *map(str, arguments)])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def peer(tmp_path_factory, prompts):
    """The option that lets a stand-in race; it has stock's answers from this process."""
    model, tokenizer = mlx_lm.load(files("mlx_ddtree") / "demo" / "target")
    chat = [{"role": "user", "content": PROMPTS[0]["prompt"]}]
    asked = [tokenizer.apply_chat_template(chat, add_generation_prompt=True), tokenizer.encode(PROMPTS[1]["text"])]
    answers = {
        tuple(ids): [r.token for r in mlx_lm.stream_generate(model, tokenizer, ids, max_tokens=TOKENS)] for ids in asked
    }
    folder = tmp_path_factory.mktemp("stand_ins")
    return lambda kind: ["--peer", f"{kind}={sys.executable},{adapter(folder, kind, answers)}"]


def test_whatever_the_others_do_the_race_goes_on(peer, prompts, capfd):
    """One that decodes as stock does is identical; one that misbehaves is a row with a reason, and holds nobody up."""
    peers = [part for kind in MISBEHAVIOUR for part in peer(kind)]
    wanted = ["--entrants", "ours dflash 8", "z-lab", *MISBEHAVIOUR]
    code, out, err = race(capfd, "--data", prompts, *peers, *wanted, "--limit", "6", "--json")
    assert code == 0 and "Traceback" not in err
    summary = json.loads(out)
    rows = {row["name"]: row for row in summary["standings"]}
    reasons = {name: row["failure"] for name, row in rows.items() if row["failure"]}
    assert reasons == {
        "z-lab block 8": "not installed: this Python has no dflash",
        "z-lab block 16": "not installed: this Python has no dflash",
        "crashes": "it ended with code 3: out of luck",
        "raises": "ValueError: a tensor is too wide",
        "hangs": "no answer within 6 s, so it was stopped",
        "babbles": "its reply is not an answer",
    }
    for name in ("mlx_lm", "ours dflash 8", "honest", "talks", "overshoots"):
        assert (rows[name]["identical"], rows[name]["compared"], rows[name]["prompts"]) == (2, 2, 2), name
        assert rows[name]["ratio"] > 0 and set(rows[name]["by_kind"]) == {"easy", "hard"}
    assert (rows["lies"]["identical"], rows["lies"]["compared"]) == (0, 2)
    assert rows["mlx_lm"]["ratio"] == 1.0 and rows["mlx_lm"]["tau"] == 1.0
    assert rows["honest"]["tau"] == pytest.approx(11.0)  # all but the first token in one round
    assert "mlx" in summary["versions"]["honest"]


def test_a_race_goes_on_from_its_file(peer, tmp_path, prompts, capfd):
    file = tmp_path / "race.jsonl"
    options = ["--data", prompts, *peer("honest"), "--entrants", "honest", "--output", file]
    code, out, err = race(capfd, *options, "--count", "1")
    assert code == 0 and "1 prompts" in out and "1/1" in err
    first = file.read_text()
    code, out, err = race(capfd, *options, "--repeats", "2")
    assert code == 0 and "2 prompts" in out and "3/3" in err
    assert file.read_text().startswith(first) and len(file.read_text().splitlines()) == 1 + 4
    code, _, err = race(capfd, *options, "--temp", "0.5")
    assert code == 2 and "is another race: temp differ" in err
    file.write_text(first + '{"digest": "x"}\n')
    code, _, err = race(capfd, *options)
    assert code == 2 and "no turn of a race" in err


def test_above_temperature_0_tokens_are_not_compared(peer, prompts, capfd):
    wanted = [*peer("honest"), "--entrants", "honest", "--count", "1"]
    code, out, _ = race(capfd, "--data", prompts, *wanted, "--temp", "0.7", "--threads", "1", "--json")
    assert code == 0
    assert [row["compared"] for row in json.loads(out)["standings"]] == [0, 0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--temp", "-1"], "--temp must not be negative"),
        (["--limit", "0"], "--limit must be positive"),
        (["--peer", "z-lab"], "write NAME=PYTHON"),
        (["--entrants", "nobody"], "nobody is called"),
        (["--data", "no/such.jsonl"], "no such file"),
        (["--model", "/no/such/folder"], "no such folder"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments, message, capfd):
    code, out, err = race(capfd, *arguments)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err


def test_ctrl_c_stops_all_programs(peer, prompts):
    """They have sessions of their own, so nobody else would."""
    command = [
        sys.executable,
        "-m",
        "mlx_ddtree.benchmark",
        "race",
        "--data",
        str(prompts),
        "--max-tokens",
        str(TOKENS),
    ]
    command += [*peer("hangs"), "--entrants", "hangs"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if line.startswith("warming up"):
            break
    time.sleep(0.5)
    children = _children(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "Traceback" not in error
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def _children(parent):
    """The processes that a process has started (Linux)."""
    task = f"/proc/{parent}/task/{parent}/children"
    if not os.path.exists(task):
        pytest.skip("this system does not list a process's children")
    with open(task, encoding="utf-8") as file:
        return file.read().split()

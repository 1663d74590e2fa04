"""generate, chat and server on several ranks: rank 0 talks, and says what one process says."""

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest

from mlx_ddtree.distributed.watch import EXIT_CODE

from .launch import ROOT, Ranks, free_ports

QUESTION = "Write a function that counts vowels."
FIXED = ["--tree-budget", "8", "--parity", "off"]  # else rounds are measured first
OPTIONS = ["--temp", "0.7", "--seed", "1", "--max-tokens", "30", *FIXED]
pytestmark = pytest.mark.ranks


def test_generate_under_mlx_launch():
    command = [sys.executable, "-m", "mlx_ddtree.generate", "--prompt", QUESTION, "--json", *OPTIONS]
    alone = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    launch = [sys.executable, "-c", "from mlx._distributed_utils.launch import main; main()"]
    ports = ["--starting-port", str(max(free_ports(2)))]
    several = subprocess.Popen(
        [*launch, "-n", "2", "--backend", "ring", *ports, "--", *command],
        stdin=subprocess.PIPE,  # open, as a terminal is
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    with several:
        printed, _ = several.stdout.read(), several.wait(120)
    one, two = json.loads(alone.stdout), json.loads(printed)  # one object: only rank 0 prints
    assert one["text"] == two["text"]
    assert two["statistics"]["exchange"]["ranks"] == 2


def test_a_shortened_prompt_leaves_the_same_gaps_on_all_ranks(tmp_path):
    options = ["--prefill-compression", "always", "--prefill-scorer", "lexical", "--prefill-keep-ratio", "0.4"]
    prompt = " ".join(f"Fact {i}: the {i}th number is {i * i}." for i in range(120)) + " " + QUESTION
    command = ["mlx_ddtree.generate", "--prompt", prompt, "--json", *OPTIONS, *options]
    alone = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=True)
    with Ranks(2, command, tmp_path) as ranks:
        (two,) = ranks.results()
    one = json.loads(alone.stdout)
    assert 0 < two["compression"]["kept_tokens"] < two["compression"]["prompt_tokens"]
    assert (one["tokens"], one["compression"]["kept_tokens"]) == (two["tokens"], two["compression"]["kept_tokens"])


def test_chat_keeps_its_caches_on_all_ranks(tmp_path):
    lines = f"{QUESTION}\nNow consonants.\n/undo\nNow digits.\n/stats\n/exit\n"
    command = ["mlx_ddtree.chat", "--max-tokens", "30", *FIXED]
    alone = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, input=lines, cwd=ROOT)
    with Ranks(2, command, tmp_path) as ranks:
        ranks.say(lines)
        assert ranks.wait() == [0, 0]
        said = [line for line in ranks.out().splitlines() if line.lstrip("> ")]
    assert ranks.out(1) == ""
    answers = [line for line in alone.stdout.splitlines() if line and not line.startswith(("last answer", "all 3"))]
    code = [line for line in answers if line.startswith((" ", "def "))]
    assert len(code) > 3
    assert [line for line in said if line.startswith((" ", "def "))][: len(code)] == code
    kept = next(line for line in alone.stdout.splitlines() if line.startswith("prompt:"))
    assert kept in ranks.out()


@pytest.fixture
def server(tmp_path):
    (port,) = free_ports(1)
    with Ranks(2, ["mlx_ddtree.server", "--port", port, *FIXED], tmp_path) as ranks:
        ranks.wait_for("/v1;")
        ranks.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield ranks


def test_server(server):
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 30, "temperature": 0}
    first, again = (httpx.post(server.url, json=body, timeout=60).json() for _ in range(2))
    assert first["choices"][0]["message"]["content"].startswith("```python\ndef ")
    assert again["choices"] == first["choices"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    server.signal(0, signal.SIGINT)
    assert server.wait(30) == [130, 0]


def test_a_client_is_told_that_a_machine_is_gone(server):
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4000, "temperature": 1.6, "stream": True}
    events = []
    with httpx.stream("POST", server.url, json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            events.append(line)
            if len(events) == 10:
                server.signal(1, signal.SIGKILL)
    assert any("machine_lost" in event and "rank 1 on" in event for event in events[-4:])
    assert server.processes[0].wait(30) == EXIT_CODE

"""The program: options, what it prints, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import openai
import pytest

from mlx_ddtree.errors import install_command
from mlx_ddtree.server.__main__ import main

from .running import BABBLE, QUESTION, text_of, wait_until

COMMAND = [sys.executable, "-m", "mlx_ddtree.server", "--port", "0", "--method", "ar"]


class Program:
    """A server in a process of its own."""

    def __init__(self, *arguments, **environment):
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+/v1", line)
        assert found, line + self.process.stderr.read()
        self.client = openai.OpenAI(
            base_url=found[0], api_key=environment.get("MLX_DDTREE_API_KEY", "none"), max_retries=0, timeout=60
        )

    def end(self, number):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture
def program():
    programs = []

    def start(*arguments, **environment):
        programs.append(Program(*arguments, **environment))
        return programs[-1]

    yield start
    for each in programs:
        each.process.kill()
        each.process.communicate()


def test_sigterm_lets_an_answer_finish(program):
    server = program("--served-model-name", "mine", "--max-tokens", "30", MLX_DDTREE_API_KEY="secret")
    assert [model.id for model in server.client.models.list()] == ["mine"]
    whole = server.client.chat.completions.create(model="mine", messages=QUESTION)
    assert whole.usage.completion_tokens == 30  # the default of --max-tokens
    with pytest.raises(openai.AuthenticationError):
        server.client.with_options(api_key="wrong").models.list()
    chunks = server.client.chat.completions.create(model="mine", messages=QUESTION, max_tokens=60, stream=True)
    first = [next(chunks), next(chunks)]
    ended = []
    thread = threading.Thread(target=lambda: ended.append(server.end(signal.SIGTERM)))
    thread.start()
    chunks = first + list(chunks)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop") and text_of(chunks)
    thread.join(60)
    assert ended == [(0, "loading mine\n")]


def test_ctrl_c_cuts_what_takes_too_long(program):
    server = program("--shutdown-timeout", "1")
    chunks = server.client.chat.completions.create(
        model="default_model", messages=QUESTION, stream=True, **BABBLE | {"max_tokens": 8000}
    )
    next(chunks)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(server.end(signal.SIGINT)))
    thread.start()
    with pytest.raises(openai.APIError, match="the server is stopping"):
        for _ in chunks:
            pass
    thread.join(60)
    assert ended == [(130, "loading mlx_ddtree-demo\n\ninterrupted\n")]
    with pytest.raises(openai.APIError):
        openai.OpenAI(base_url=server.client.base_url, api_key="x", max_retries=0).models.list()


@pytest.mark.slow
def test_after_kill_9_a_server_goes_on_from_its_folder(program, tmp_path):
    asked = {
        "model": "default_model",
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "Count vowels. " * 40}],
    }
    server = program("--prompt-cache-dir", str(tmp_path))
    first = server.client.chat.completions.create(**asked)
    wait_until(lambda: len(list(tmp_path.glob("*.rows.safetensors"))) * 256 >= first.usage.total_tokens - 1)
    server.process.kill()
    server.process.wait()
    server = program("--prompt-cache-dir", str(tmp_path))
    again = server.client.chat.completions.create(**asked)
    assert again.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens - 1
    assert again.choices[0].message.content == first.choices[0].message.content
    assert server.end(signal.SIGTERM)[0] == 0


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 address")
def test_a_server_answers_to_the_address_that_it_prints(program):
    server = program("--host", "::1")
    assert "[::1]" in str(server.client.base_url)
    assert server.client.models.list().data
    assert server.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temp", "-1"], "temp -1.0 is out of range"),
        (["--model", "/nowhere"], "no such folder"),
        (["--prompt-cache-bytes", "many"], "500MB"),
        (["--queue-size", "-1"], "--queue-size"),
        (["--prompt-cache-dir", "/dev/null/caches"], "cannot be kept in /dev/null/caches"),
        (["--prompt-cache-dir", ".", "--kv-bits", "4"], "leave out one of them"),
        (["--prompt-cache-dir", ".", "--prompt-cache-dir-bytes", "many"], "500MB"),
        (["--chat-template-args", "[]"], "JSON object"),
        (["--host", "no.such.host.invalid"], "no address of this machine"),
        (["--port", "99999"], "out of range"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys, arguments, message):
    before = signal.getsignal(signal.SIGTERM)
    try:
        status = main([*COMMAND[3:], *arguments])
    except SystemExit as ending:  # argparse's own
        status = ending.code
    signal.signal(signal.SIGTERM, before)
    assert status == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_taken_port_is_found_before_anything_loads(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    assert "try another --port" in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out


def test_without_its_extra_it_says_which():
    code = "import sys; sys.modules['uvicorn'] = None; from mlx_ddtree.server.__main__ import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: the server needs uvicorn: run {install_command('server')} in mlx_ddtree's folder\n"

"""Coding agents and client libraries against the stand-in, one after the other: the table of docs/agents.md.

    npm install @openai/codex opencode-ai cline @mariozechner/pi-coding-agent @qwen-code/qwen-code openai @anthropic-ai/sdk
    python -m venv aider && aider/bin/pip install aider-chat
    python studies/agents/try_clients.py --programs node_modules/.bin aider/bin [--only codex aider] [--verbose]

Each is asked to write a file, in a folder and a home of its own.  A program that is not there is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from parts.clients import CLIENTS, Client
from stand_in import SETTINGS, stand_in

from mlx_ddtree.server.run import listen, make_server
from mlx_ddtree.terminal import table_text

SECONDS = 180
NODE = "NODE_MODULES_FOLDER"
"""The variable with the folder whose node_modules the npm libraries are taken from: the current one, unless it is set."""


@contextmanager
def served() -> Iterator[str]:
    """The stand-in's address."""
    engine = stand_in("qwen3", 2**18)
    engine.start()
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(make_server(engine, SETTINGS).config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        engine.stop()


def run(client: Client, program: str, url: str, home: Path) -> tuple[subprocess.CompletedProcess[str], bool]:
    """What a client's process said, and whether the file is there."""
    folder = home / "project"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    for name, text in client.files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{url}", url))
    git = {f"GIT_{who}_{what}": "stand-in" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    more = {name: value.replace("{url}", url) for name, value in client.environment.items()}
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TERM": "dumb",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    environment |= git | more | {NODE: os.environ[NODE]}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, *(argument.replace("{url}", url) for argument in arguments)]
        options = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL, "timeout": SECONDS}
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, **options)
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(command, 124, str(error.stdout), f"not done after {SECONDS} s")

    if client.before:
        call(*client.before)
    ended = call(*client.arguments)
    written = folder / "hello.txt"
    return ended, written.exists() and written.read_text() == "hello\n"


def version_of(client: Client, program: str) -> str:
    """What a program says that it is."""
    ended = subprocess.run([program, *client.version], capture_output=True, text=True, check=False, timeout=60)
    words = [word for word in (ended.stdout + ended.stderr).split() if word.strip("v")[:1].isdigit()]
    return words[0].strip("v") if words else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", nargs="*", default=[], help="folders in which the agents' programs are")
    parser.add_argument("--only", nargs="*", help="names of clients")
    parser.add_argument("--verbose", action="store_true", help="show what they say")
    args = parser.parse_args()
    os.environ.setdefault(NODE, str(Path.cwd()))
    places = os.pathsep.join([*(str(Path(folder).resolve()) for folder in args.programs), os.environ["PATH"]])
    rows = []
    with served() as url:
        for client in CLIENTS:
            program = shutil.which(client.program, path=places)
            if (args.only and client.name not in args.only) or program is None:
                continue
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
                ended, written = run(client, program, url, Path(home))
            if args.verbose or ended.returncode:
                print(ended.stdout, ended.stderr, file=sys.stderr)
            done = ended.returncode == 0 and written == client.writes
            version = version_of(client, program)
            rows.append(
                {"client": client.name, "version": version, "API": client.api, "task done": "yes" if done else "no"}
            )
            print(*rows[-1].values(), file=sys.stderr)
    print(table_text(rows))


if __name__ == "__main__":
    main()

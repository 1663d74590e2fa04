"""A server for coding agents whose model is a script, for machines and models that cannot drive them.

    python studies/agents/stand_in.py [--port 8080] [--template qwen3] [--context 262144]

The model (tests/server/scripted.py) is tiny and random, and its answers are forced: it reasons, says a word and calls the
agent's own tool for shell commands, which writes hello.txt; once the tool has answered, it says so and ends.  Templates,
prompts, caches, drafting, parsers and the three APIs are the server's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_ddtree.server.run import listen, serve
from mlx_ddtree.server.settings import RequestDefaults, ServerSettings

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.server.scripted import ScriptedEngine, scripted_pair, template_of  # noqa: E402

COMMAND = "echo hello > hello.txt && cat hello.txt"
SHELLS: Mapping[str, dict[str, Any]] = {
    "exec_command": {"cmd": COMMAND},
    "run_commands": {"commands": [COMMAND]},
    "run_shell_command": {"command": COMMAND, "description": "Writes a file", "is_background": False},
    "bash": {"command": COMMAND, "description": "Writes a file"},
}
"""Agents' names of the tool for shell commands, and its arguments."""
LISTING = "I write it.\n\nhello.txt\n```\nhello\n```\n"
"""An edit as agents without tools read it."""


def script(prompt: str) -> str:
    """The answer to a prompt as the template wrote it."""
    turn = prompt.rpartition("<|im_start|>user")[2]
    if "<tool_response>" in turn:
        return "<think>\nThe tool answered.\n</think>\n\nThe file hello.txt says hello."
    for name, arguments in SHELLS.items():
        if f'"name": "{name}"' in prompt:
            call = json.dumps({"name": name, "arguments": arguments})
            return f"<think>\nA command does it.\n</think>\n\nI write it.\n<tool_call>\n{call}\n</tool_call>"
    said = LISTING if "file listing" in prompt else "Hello."
    return f"<think>\nThere are no tools.\n</think>\n\n{said}"


def stand_in(template: str, context: int) -> ScriptedEngine:
    """The engine, not started."""
    return ScriptedEngine(lambda: scripted_pair(template_of(template), context), script)


SETTINGS = ServerSettings(model="stand-in", defaults=RequestDefaults(max_tokens=8192))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--template", choices=["qwen3", "hermes"], default="qwen3")
    parser.add_argument("--context", type=int, default=2**18, help="tokens that the model can read")
    args = parser.parse_args()
    engine = stand_in(args.template, args.context)
    engine.start()
    listener = listen("127.0.0.1", args.port)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}")
    serve(listener, engine, SETTINGS, verbose=True)
    engine.stop()


if __name__ == "__main__":
    main()

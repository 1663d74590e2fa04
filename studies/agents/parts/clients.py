"""Coding agents and client libraries, each with the settings that point it at a server on this machine.

docs/agents.md shows the same settings.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

TASK = "Write hello.txt."
CONTEXT, ANSWER = 32768, 8192


@dataclass(frozen=True)
class Client:
    """A program that is run once, in a folder and a home of its own.

    api: which of the server's it uses.
    program: its name in a folder of programs.
    arguments: of the run.  version: those that make it say its version.
    files: in its home, whose names and texts may hold {url}.
    environment: beside HOME and PATH.
    writes: whether it is to write hello.txt.
    """

    name: str
    api: str
    program: str
    arguments: tuple[str, ...]
    version: tuple[str, ...] = ("--version",)
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    writes: bool = True


CODEX = """\
model = "default_model"
model_provider = "mlx_ddtree"
model_context_window = 32768
web_search = "disabled"

[model_providers.mlx_ddtree]
name = "mlx_ddtree"
base_url = "{url}/v1"
wire_api = "responses"
"""
LIMIT = {"default_model": {"name": "local", "limit": {"context": CONTEXT, "output": ANSWER}}}


def opencode(package: str) -> dict[str, str]:
    """opencode's settings for one of its provider packages."""
    options = {"baseURL": "{url}/v1", "apiKey": "none"}
    provider = {"npm": package, "name": "mlx_ddtree", "options": options, "models": LIMIT}
    settings = {"provider": {"mlx_ddtree": provider}} | dict.fromkeys(
        ("model", "small_model"), "mlx_ddtree/default_model"
    )
    return {".config/opencode/opencode.json": json.dumps(settings, indent=2)}


def pi(api: str, base: str) -> dict[str, str]:
    """pi's settings for one of its APIs."""
    model = {"id": "default_model", "contextWindow": CONTEXT, "maxTokens": ANSWER}
    provider = {"baseUrl": base, "api": api, "apiKey": "none", "models": [model]}
    return {".pi/agent/models.json": json.dumps({"providers": {"mlx_ddtree": provider}}, indent=2)}


AIDER = (
    *(
        "--yes-always",
        "--no-check-update",
        "--analytics-disable",
        "--no-show-model-warnings",
        "--no-show-release-notes",
    ),
    *("--message", TASK),
)
PI = ("--provider", "mlx_ddtree", "--model", "default_model", "-p", TASK)
NPM_VERSIONS = "['openai', '@anthropic-ai/sdk'].map(n => require(`${process.env.NODE_MODULES_FOLDER}/node_modules/${n}/package.json`).version).join('/')"
CLIENTS = (
    Client(
        *("codex", "Responses", "codex"),
        ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", TASK),
        files={".codex/config.toml": CODEX},
    ),
    Client("opencode", "chat", "opencode", ("run", TASK), files=opencode("@ai-sdk/openai-compatible")),
    Client("opencode", "Responses", "opencode", ("run", TASK), files=opencode("@ai-sdk/openai")),
    Client("opencode", "Messages", "opencode", ("run", TASK), files=opencode("@ai-sdk/anthropic")),
    Client(
        *("cline", "chat", "cline"),
        ("-P", "openai", "-m", "default_model", "--auto-approve", "true", TASK),
        before=("auth", "-p", "openai", "-k", "none", "-m", "default_model", "-b", "{url}/v1"),
    ),
    Client(
        *("aider", "chat", "aider", AIDER),
        environment={"AIDER_MODEL": "openai/default_model", "OPENAI_API_BASE": "{url}/v1", "OPENAI_API_KEY": "none"},
    ),
    Client(
        *("aider", "Messages", "aider", AIDER),
        environment={
            "AIDER_MODEL": "anthropic/default_model",
            "ANTHROPIC_API_BASE": "{url}",
            "ANTHROPIC_API_KEY": "none",
        },
    ),
    Client("pi", "chat", "pi", PI, files=pi("openai-completions", "{url}/v1")),
    Client("pi", "Responses", "pi", PI, files=pi("openai-responses", "{url}/v1")),
    Client("pi", "Messages", "pi", PI, files=pi("anthropic-messages", "{url}")),
    Client(
        *("qwen", "chat", "qwen", ("--yolo", "-p", TASK)),
        environment={"OPENAI_BASE_URL": "{url}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": "default_model"},
    ),
    Client(
        *("openai and @anthropic-ai/sdk", "all", "node", (str(Path(__file__).parent / "libraries.mjs"), "{url}")),
        version=("-p", NPM_VERSIONS),
        writes=False,
    ),
    Client(
        *("openai and anthropic", "all", sys.executable, (str(Path(__file__).parent / "libraries.py"), "{url}")),
        version=("-c", "import anthropic, openai; print(f'{openai.__version__}/{anthropic.__version__}')"),
        writes=False,
    ),
)

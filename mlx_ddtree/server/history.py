"""What clients' conversations hold and chat templates do not take."""

from __future__ import annotations

import json
from typing import Any

from mlx_lm.server import process_message_content
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.server.errors import ApiError


def make_fit_for_template(tokenizer: TokenizerWrapper, messages: list[dict[str, Any]]) -> None:
    """Change messages in place to what mlx-lm's templates expect.  Raises ApiError 400 that names the message.

    1. The arguments of earlier calls become objects, and a list without calls goes, which templates take for calls.
    2. The role "developer" becomes "system" where the template does not know it.
    3. Contents become texts, by mlx-lm's own function.
    """
    knows_developer = _mentions_developer(tokenizer)
    for number, message in enumerate(messages):
        if not message.get("tool_calls"):
            message.pop("tool_calls", None)
        for place, call in enumerate(message.get("tool_calls") or []):
            function = call["function"]
            name = f"messages.{number}.tool_calls.{place}.function.arguments"
            function["arguments"] = _arguments(function.get("arguments"), name)
        if message["role"] == "developer" and not knows_developer:
            message["role"] = "system"
    process_message_content(messages)


def completed(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools with what some templates count on: a description, and parameters with properties."""
    made = []
    for tool in tools:
        function = {"description": "", **tool["function"]}
        function["parameters"] = {"type": "object", "properties": {}} | (function.get("parameters") or {})
        made.append(tool | {"function": function})
    return made


def _mentions_developer(tokenizer: TokenizerWrapper) -> bool:
    """Templates that do not know a role pass over its messages, or write a header that the model never saw."""
    template = tokenizer.chat_template if tokenizer.has_chat_template else None
    return isinstance(template, str) and "developer" in template


def _arguments(arguments: Any, name: str) -> dict[str, Any]:
    """A call's arguments as an object; clients keep a call without any as "", "null" or null."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else None
        except (ValueError, RecursionError):
            raise ApiError(400, f"{name}: this text is not JSON", param="messages") from None
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise ApiError(400, f"{name}: must hold a JSON object", param="messages")
    return arguments

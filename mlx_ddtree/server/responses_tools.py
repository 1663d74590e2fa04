"""OpenAI's Responses API: its tools as the functions that chat templates know, and calls back in their own form.

A custom tool takes a text instead of arguments; here it is a function of one text.  A namespace is a group of tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.parsing import refusal_of
from mlx_ddtree.server.requests import JsonObject, Text

INPUT = "input"
"""The argument of a custom tool that is called as a function."""
HOSTED = (
    "is run by OpenAI's servers; only functions, custom tools and namespaces of them work here, so leave it out"
    " (agents have a setting for it)"
)


class FunctionTool(JsonObject):
    """A function that the client runs."""

    name: Text
    description: str | None = None
    parameters: dict[str, Any] | None = None


class TextFormat(JsonObject):
    """What a custom tool's text looks like."""

    type: Text
    syntax: str | None = None
    definition: str | None = None


class CustomTool(JsonObject):
    """A tool that takes a text; its format is told to the model, and not enforced."""

    name: Text
    description: str | None = None
    format: TextFormat | None = None


class Namespace(JsonObject):
    """A group of tools."""

    name: Text
    tools: list[dict[str, Any]]


@dataclass
class Tools:
    """A request's tools.

    functions: as chats have them.
    custom: names of those that take a text.
    namespaces: the group of each tool that is in one.
    """

    functions: list[dict[str, Any]] = field(default_factory=list)
    custom: set[str] = field(default_factory=set)
    namespaces: dict[str, str] = field(default_factory=dict)

    def add(self, tool: Mapping[str, Any], where: str, namespace: str | None = None) -> None:
        """Take a tool in.  Raises ApiError 400 for one that OpenAI's servers run, and for a name that is taken."""
        kind = tool.get("type")
        if kind == "namespace" and namespace is None:
            group = _known(Namespace, tool, where)
            for place, inner in enumerate(group.tools):
                self.add(inner, f"{where}.tools.{place}", group.name)
            return
        if kind == "function":
            function = _known(FunctionTool, tool, where)
            self._take(function.name, function.description, function.parameters or {}, where)
        elif kind == "custom":
            custom = _known(CustomTool, tool, where)
            self._take(custom.name, _described(custom), _TEXT_PARAMETERS, where)
            self.custom.add(custom.name)
        else:
            raise ApiError(400, f"{where}: {json.dumps(kind)[:60]} {HOSTED}", param="tools")
        if namespace is not None:
            self.namespaces[str(tool["name"])] = namespace

    def item(self, call: Mapping[str, Any], item_id: str) -> dict[str, Any]:
        """A call, OpenAI's object of chats, as an output item of this API."""
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        named = {"id": item_id, "call_id": call["id"], "name": name, "status": "completed"}
        if name in self.namespaces:
            named["namespace"] = self.namespaces[name]
        if name in self.custom:
            return {"type": "custom_tool_call", **named, "input": _text_within(arguments)}
        return {"type": "function_call", **named, "arguments": arguments}

    def _take(self, name: str, description: str | None, parameters: dict[str, Any], where: str) -> None:
        if any(function["function"]["name"] == name for function in self.functions):
            raise ApiError(400, f"{where}.name: another tool has the name {name[:60]!r} already", param="tools")
        described = {} if description is None else {"description": description}
        function = {"name": name, **described, "parameters": parameters}
        self.functions.append({"type": "function", "function": function})


_TEXT_PARAMETERS = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT]}


def _described(tool: CustomTool) -> str:
    """What the model is told about a custom tool, the form of its text included."""
    description = tool.description or ""
    if tool.format is None or tool.format.definition is None:
        return description
    syntax = tool.format.syntax or "this"
    return f"{description}\n\n{INPUT} follows this {syntax} grammar:\n{tool.format.definition}".strip()


def _text_within(arguments: str) -> str:
    """A custom tool's text; a model that made other arguments up gets them handed on as they are."""
    values = json.loads(arguments)
    text = values.get(INPUT) if isinstance(values, dict) else None
    return text if isinstance(text, str) else arguments


def _known(kind: type[Any], tool: Mapping[str, Any], where: str) -> Any:
    try:
        return kind.model_validate(tool)
    except ValidationError as error:
        raise refusal_of(error, kind, f"{where}.") from None

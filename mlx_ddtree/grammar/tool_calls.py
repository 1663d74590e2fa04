"""Calls of tools as a grammar, in the format that a model writes them in and mlx-lm's parser reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.errors import OptionError
from mlx_ddtree.grammar.grammar import LAYOUT, Grammar
from mlx_ddtree.grammar.vocabulary import Vocabulary

Function = Mapping[str, Any]
"""OpenAI's: a name, and the schema of its arguments as `parameters`."""
LENIENT = {**LAYOUT, "lenient": True}
"""What a tool's schema says that llguidance cannot check is left to the tool."""


def call_grammar(
    tokenizer: TokenizerWrapper,
    vocabulary: Vocabulary,
    functions: Sequence[Function],
    *,
    several: bool,
    answer: Grammar | None = None,
) -> Grammar:
    """One call of one of the functions, or, if several, one or more; or `answer`, which is JSON, in their place.

    Raises OptionError where the format of the model's calls is not known here, and for schemas that make no sense.
    """
    kind = format_of(tokenizer)
    body_of = _BODIES.get(kind or "")
    if body_of is None:
        known = ", ".join(_BODIES)
        raise OptionError(f"calls cannot be forced in this model's format, {kind or 'unknown'}; known are {known}")
    rules = [f"call: {_mark(tokenizer.tool_call_start, vocabulary)} body {_mark(tokenizer.tool_call_end, vocabulary)}"]
    bodies = []
    for number, function in enumerate(functions):
        name = f"call_{number}"
        bodies.append(name)
        rules += body_of(name, function)
    rules.append(f"body: {' | '.join(bodies)}")
    calls = 'call ("\\n" call)*' if several else "call"
    start = f"start: {calls}"
    if answer is not None:
        if answer.kind != "json_schema":
            raise OptionError("beside tools an answer's form can be JSON only")
        start = f"start: calls | answer\ncalls: {calls}\nanswer: %json {_schema(json.loads(answer.text), LAYOUT)}"
    return Grammar.lark("\n".join([start, *rules]))


def format_of(tokenizer: TokenizerWrapper) -> str | None:
    """The name of mlx-lm's parser of the model's calls; None without one."""
    parser = tokenizer.tool_parser
    return None if parser is None else str(parser.__module__).rpartition(".")[2]


def _mark(text: str, vocabulary: Vocabulary) -> str:
    """A mark of the format in Lark: a token that stands for no text by its number, others as text."""
    tokens = vocabulary.tokens.tokenize_str(text, parse_special=True)
    if len(tokens) == 1 and vocabulary.is_special(tokens[0]):
        return f"<[{tokens[0]}]>"
    return json.dumps(text)


def _hermes(name: str, function: Function) -> list[str]:
    """{"name": ..., "arguments": {...}} on a line of its own."""
    head = json.dumps(f'\n{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "arguments": ')
    return [f'{name}: {head} {name}_arguments "}}\\n"', f"{name}_arguments: %json {_schema(_parameters(function))}"]


def _coder(name: str, function: Function) -> list[str]:
    """<function=...> with a <parameter=...> for each argument, in the order of the schema; texts stand as they are."""
    parameters = _parameters(function)
    required = parameters.get("required", [])
    begin = f"\n<function={function['name']}>\n"
    lines = [f"{name}: {json.dumps(begin)}"]
    rules = []
    for number, (key, schema) in enumerate(parameters.get("properties", {}).items()):
        part = f"{name}_{number}"
        lines.append(part if key in required else f"{part}?")
        begin = json.dumps(f"<parameter={key}>\n")
        if _is_text(schema):
            rules.append(f'{part}: {begin} {part}_text "\\n"')
            rules.append(f"{part}_text[lazy]: /(.|\\n)*<\\/parameter>/")
            continue
        rules.append(f'{part}: {begin} {part}_value "\\n</parameter>\\n"')
        texts = schema.get("enum", [])
        if texts and all(isinstance(text, str) for text in texts):
            rules.append(f"{part}_value: {' | '.join(map(json.dumps, texts))}")
        else:
            rules.append(f"{part}_value: %json {_schema(schema, defs=parameters)}")
    lines.append(json.dumps("</function>\n"))
    return [" ".join(lines), *rules]


_BODIES: Mapping[str, Callable[[str, Function], list[str]]] = {"json_tools": _hermes, "qwen3_coder": _coder}


def _is_text(schema: Any) -> bool:
    """Whether an argument may be any text: what says nothing of its type is read as one."""
    return not isinstance(schema, Mapping) or (schema.get("type", "string") == "string" and "enum" not in schema)


def _parameters(function: Function) -> Mapping[str, Any]:
    """The schema of a function's arguments; none is no arguments."""
    schema = function.get("parameters")
    if not schema:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(schema, Mapping):
        raise OptionError(f"the parameters of the tool {str(function['name'])[:80]!r} are no schema")
    return schema


def _schema(
    schema: Mapping[str, Any], layout: Mapping[str, Any] = LENIENT, defs: Mapping[str, Any] | None = None
) -> str:
    """A schema as Lark's %json takes it, with the layout that it has not chosen itself; defs: where its $defs stand."""
    own = schema.get("x-guidance")
    shared = {key: defs[key] for key in ("$defs", "definitions") if defs is not None and key in defs}
    return json.dumps({**shared, **schema, "x-guidance": {**layout, **(own if isinstance(own, Mapping) else {})}})

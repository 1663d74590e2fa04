"""From what a request says of its answer's form, and of the tools that must be called, to one grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.grammars import open_walk, vocabulary_of
from mlx_ddtree.grammar.grammar import Grammar
from mlx_ddtree.grammar.tool_calls import call_grammar
from mlx_ddtree.pair import Pair
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.requests import ChatRequest, CompletionRequest


def grammar_for(
    pair: Pair, request: CompletionRequest, tools: Sequence[Mapping[str, Any]] | None, ids: Sequence[int]
) -> Grammar | None:
    """The form that a request's answer must have; None: any.

    tools: those that may be called.  ids: of the prompt.  Raises ApiError 400 for what cannot be followed.
    """
    asked, name = _asked(request)
    choice = request.tool_choice if isinstance(request, ChatRequest) else None
    forced = choice == "required" or isinstance(choice, Mapping)
    if asked is None and not forced:
        return None
    param = "tool_choice" if forced else name
    if isinstance(request, ChatRequest) and request.continue_final_message:
        raise ApiError(400, f"{param}: an answer that is begun already cannot be held to it", param=param)
    try:
        grammar = asked
        if forced or (tools and asked is not None):
            grammar = _with_calls(pair, request, tools or [], None if forced else asked)
        open_walk(pair, grammar, ids)
    except OptionError as error:
        raise ApiError(400, f"{param}: {error}", param=param) from None
    return grammar


def _asked(request: CompletionRequest) -> tuple[Grammar | None, str]:
    """The form of the answer's text, and the field that asks for it.  Raises ApiError 400."""
    reasons = isinstance(request, ChatRequest)
    for name in ("response_format", "structured_outputs"):
        form = getattr(request, name)
        if form is None or form == {"type": "text"}:
            continue
        try:
            return _grammar(form, reasons), name
        except OptionError as error:
            raise ApiError(400, f"{name}: {error}", param=name) from None
    return None, ""


def _grammar(form: Mapping[str, Any], reasons: bool) -> Grammar:
    """What one of the two fields asks for, which requests.py has checked.  Raises OptionError."""
    if form.get("type") == "json_object" or form.get("json_object"):
        return Grammar.json_object(after_reasoning=reasons)
    if form.get("type") == "json_schema":
        return Grammar.json_schema(form["json_schema"]["schema"], after_reasoning=reasons)
    if "json" in form:
        return Grammar.json_schema(form["json"], after_reasoning=reasons)
    if "regex" in form:
        return Grammar.regex(form["regex"], after_reasoning=reasons)
    if "choice" in form:
        return Grammar.lark(f"start: {' | '.join(map(json.dumps, form['choice']))}", after_reasoning=reasons)
    return Grammar.lark(form["grammar"], after_reasoning=reasons)


def _with_calls(
    pair: Pair, request: CompletionRequest, tools: Sequence[Mapping[str, Any]], answer: Grammar | None
) -> Grammar:
    """Calls of tools; answer: what may be said in their place, JSON only.  Raises OptionError, ApiError 400."""
    assert isinstance(request, ChatRequest)
    choice = request.tool_choice
    functions = [tool["function"] for tool in tools]
    several = request.parallel_tool_calls is not False
    if isinstance(choice, Mapping):
        several = False
        wanted = choice["function"]["name"]
        functions = [function for function in functions if function["name"] == wanted]
        if not functions:
            raise ApiError(400, f"tool_choice: there is no tool {wanted[:80]!r}", param="tool_choice")
    elif not functions:
        raise ApiError(400, "tool_choice: there are no tools that could be called", param="tool_choice")
    return call_grammar(pair.tokenizer, vocabulary_of(pair), functions, several=several, answer=answer)

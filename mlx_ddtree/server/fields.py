"""Fields of other servers' requests: which change nothing, and which are refused because they would.

A field that is passed over silently makes an answer other than the one that was asked for.  So every name that a
request model does not have is known to say nothing about the answer, or has a value that asks for nothing, or is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import Any

from pydantic import BaseModel

from mlx_ddtree.server.errors import ApiError

ABOUT_NO_ANSWER = frozenset(
    """
    cache_prompt chat_id draft_model metadata num_draft_tokens prediction prompt_cache_key prompt_cache_options
    prompt_cache_retention safety_identifier service_tier session_id store user
    """.split()
)
"""Names for bookkeeping and for speed."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "continue_final_message": (False,),
    "echo": (False,),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tool_choice": ("auto", "none"),
    "truncation": ("disabled",),
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}
"""Name -> the values that change nothing, of options that a request does not offer."""

OF_OTHER_SERVERS = frozenset(
    """
    adapters allowed_token_ids audio bad_words chat_template documents dry_multiplier dynatemp_range enable_thinking
    grammar guided_choice guided_grammar guided_json guided_regex json_schema logits_processors
    max_completion_tokens mirostat n prompt prompt_logprobs repeat_penalty samplers
    thinking_budget truncate_prompt_tokens web_search_options
    """.split()
)
"""Options that change an answer elsewhere: an API that passes over what it does not know refuses these by name."""

HINTS = {
    "adapters": "an adapter is chosen when the server starts, with --adapter-path",
    "audio": "answers are text",
    "moderation": "nothing is moderated here",
    "web_search_options": "the server searches nothing; give the model a tool",
    "enable_thinking": "it belongs into chat_template_kwargs",
    "grammar": "the name here is structured_outputs: {grammar: ...}, in Lark",
    "guided_choice": "the name here is structured_outputs: {choice: [...]}",
    "guided_grammar": "the name here is structured_outputs: {grammar: ...}, in Lark",
    "guided_json": "the name here is response_format, or structured_outputs: {json: ...}",
    "guided_regex": "the name here is structured_outputs: {regex: ...}",
    "json_schema": "the name here is response_format",
    "messages": "they belong to /v1/chat/completions",
    "prompt": "it belongs to /v1/completions; a chat has messages",
    "stop_sequences": "the name here is stop",
}


def check_fields(kind: type[BaseModel], body: Mapping[str, Any], passing: Container[str] = ABOUT_NO_ANSWER) -> None:
    """Raises ApiError 400 for the first field that asks for what is not offered.  Null asks for nothing.

    passing: names that say nothing about the answer.
    """
    for name, value in body.items():
        if value is not None and name not in kind.model_fields and name not in passing:
            if name in NEUTRAL:
                _check_neutral(name, value)
            else:
                raise unknown(name)


def check_options(kind: type[BaseModel], body: Mapping[str, Any]) -> None:
    """As check_fields for an API that passes over what it does not know, but for what is known to change answers."""
    asked = {name: value for name, value in body.items() if name in NEUTRAL or name in OF_OTHER_SERVERS}
    check_fields(kind, asked, passing=())


def unknown(name: str) -> ApiError:
    """The refusal of a field that is not offered."""
    hint = HINTS.get(name, "leave it out")
    return ApiError(400, f"{name[:80]}: this request has no such field; {hint}", param=name[:80])


def _check_neutral(name: str, value: Any) -> None:
    neutral = NEUTRAL[name]
    if any(type(value) is type(other) and value == other for other in neutral):
        return
    shown = json.dumps(value)[:80]
    message = f"{name}: {shown} is not supported here; leave it out or use {json.dumps(neutral[0])}"
    raise ApiError(400, message, param=name)

"""Fields of other servers' requests: which change nothing, and which are refused because they would.

A field that is passed over silently makes an answer other than the one that was asked for.  So every name that a
request model does not have is known to say nothing about the answer, or has a value that asks for nothing, or is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mlx_ddtree.server.errors import ApiError

ABOUT_NO_ANSWER = frozenset(
    """
    cache_prompt chat_id draft_model metadata num_draft_tokens prediction prompt_cache_key prompt_cache_retention
    safety_identifier service_tier session_id store user
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
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}
"""Name -> the values that change nothing, of options that a request does not offer."""

HINTS = {
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


def check_fields(kind: type[BaseModel], body: Mapping[str, Any]) -> None:
    """Raises ApiError 400 for the first field that asks for what is not offered.  Null asks for nothing."""
    for name, value in body.items():
        if value is None:
            continue
        if name in kind.model_fields or name in ABOUT_NO_ANSWER:
            continue
        if name in NEUTRAL:
            _check_neutral(name, value)
        else:
            hint = HINTS.get(name, "leave it out")
            raise ApiError(400, f"{name[:80]}: this request has no such field; {hint}", param=name[:80])


def _check_neutral(name: str, value: Any) -> None:
    neutral = NEUTRAL[name]
    if any(type(value) is type(other) and value == other for other in neutral):
        return
    shown = json.dumps(value)[:80]
    message = f"{name}: {shown} is not supported here; leave it out or use {json.dumps(neutral[0])}"
    raise ApiError(400, message, param=name)

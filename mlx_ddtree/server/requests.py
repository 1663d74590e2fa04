"""What the body of a request may hold.  `fields.py` has the names that are not offered."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_PROMPTS = 64
MOST_ANSWERS = 16
"""Of a request, and to each of its prompts."""


def _stop_strings(value: Any) -> Any:
    """One text or several -> a list of texts."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > 16 or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("must be a text or a list of up to 16 texts, none of them empty")
    return texts


def _prompt(value: Any) -> Any:
    """A text, token ids, or a list of such prompts."""
    several = isinstance(value, list) and value and isinstance(value[0], str | list)
    prompts = value if several else [value]
    if len(prompts) > MOST_PROMPTS:
        raise ValueError(f"may hold {MOST_PROMPTS} prompts at most")
    for prompt in prompts:
        ids = isinstance(prompt, list) and all(type(token) is int for token in prompt)
        if not ids and not isinstance(prompt, str):
            raise ValueError("must be a text or a list of token ids, or a list of such prompts")
    return prompts


def _content(value: Any) -> Any:
    """A message's text, whole or in parts."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a text, or a list of parts like {'type': 'text', 'text': '...'}")
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise ValueError(
                f"has a part of type {kind[:40]!r}, but only 'text' can be read: no images, audio or files"
            )
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError("must have parts like {'type': 'text', 'text': '...'}")
    return value


def _unsupported(value: Any, instead: str) -> ValueError:
    """The refusal of a field's value, with what it may be instead."""
    return ValueError(f"{json.dumps(value)[:80]} is not supported here; use {instead}")


def _tool_choice(value: Any) -> Any:
    """auto, none, required, or one function by its name."""
    if value in (None, "auto", "none", "required"):
        return value
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _unsupported(value, '"auto", "none", "required", or {"type": "function", "function": {"name": "..."}}')
    return value


def _response_format(value: Any) -> Any:
    """OpenAI's: text, any JSON object, or JSON of a schema."""
    if value in (None, {"type": "text"}, {"type": "json_object"}):
        return value
    schema = value.get("json_schema") if isinstance(value, dict) and value.get("type") == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        of_schema = '{"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}'
        raise _unsupported(value, f'{{"type": "text"}}, {{"type": "json_object"}} or {of_schema}')
    return value


def _structured_outputs(value: Any) -> Any:
    """vLLM's: one of json, regex, choice, grammar (in Lark) and json_object."""
    if value is None:
        return None
    kinds = {"json": (str, dict), "regex": str, "choice": list, "grammar": str, "json_object": bool}
    given = {name: form for name, form in value.items() if form is not None} if isinstance(value, dict) else {}
    if len(given) != 1 or not given.keys() <= kinds.keys():
        raise ValueError(f"must be an object with one of {', '.join(kinds)}")
    ((name, form),) = given.items()
    if not isinstance(form, kinds[name]) or form is False:  # type: ignore[arg-type]
        raise ValueError(f"{name} has a value that cannot be used")
    if name == "choice" and not (form and all(isinstance(text, str) and text for text in form)):
        raise ValueError("choice must be a list of texts, none of them empty")
    return given


def _arguments(value: Any) -> Any:
    if value is None or isinstance(value, str | dict):
        return value
    raise ValueError("must be a text that holds a JSON object, or the object")


Text = Annotated[str, Field(min_length=1)]
ContextSize = Annotated[int, Field(ge=1, le=10**6)]
Penalty = Annotated[float, Field(ge=-100, le=100)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
StopStrings = Annotated[list[str], BeforeValidator(_stop_strings)]


def _token_limit(value: int) -> int:
    if value < 1:
        raise ValueError("must be at least 1; leave it out for the server's own limit")
    return value


TokenLimit = Annotated[int, Field(le=2**31), AfterValidator(_token_limit)]


class JsonObject(BaseModel):
    """An object in a body: types are taken as they stand, unknown names are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(JsonObject):
    """How to stream."""

    include_usage: bool | None = None


class CompletionRequest(JsonObject):
    """What chats and completions have in common.

    n: answers, one after the other; with a seed, of consecutive ones.
    """

    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Fraction | None = None
    min_p: Fraction | None = None
    min_tokens_to_keep: Annotated[int, Field(ge=1, le=2**31)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    xtc_probability: Fraction | None = None
    xtc_threshold: Annotated[float, Field(ge=0, le=0.5)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopStrings | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    repetition_context_size: ContextSize | None = None
    presence_penalty: Penalty | None = None
    presence_context_size: ContextSize | None = None
    frequency_penalty: Penalty | None = None
    frequency_context_size: ContextSize | None = None
    logit_bias: dict[str, Penalty] | None = None
    response_format: Annotated[Any, AfterValidator(_response_format)] = None
    structured_outputs: Annotated[Any, AfterValidator(_structured_outputs)] = None
    prefill_compression: Literal["off", "auto", "always", "messages"] | None = None
    prefill_threshold: Annotated[int, Field(ge=0, le=2**31)] | None = None
    prefill_keep_ratio: PositiveFraction | None = None
    prefill_positions: Literal["original", "compact"] | None = None
    prefill_protect: Annotated[list[Text], Field(max_length=64)] | None = None
    kv_keep_ratio: PositiveFraction | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of the answer at most."""
        return self.max_tokens

    @property
    def top(self) -> int | None:
        """Most probable tokens to report of each position; None: no probabilities at all."""
        return None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class FunctionCall(JsonObject):
    """What a model called earlier in the conversation."""

    name: str
    arguments: Annotated[Any, AfterValidator(_arguments)] = None


class ToolCall(JsonObject):
    """A call of a function, as assistants' messages hold it."""

    function: FunctionCall


class Message(JsonObject):
    """One message; the template sees its other names too."""

    role: Text
    content: Annotated[Any, AfterValidator(_content)] = None
    tool_calls: list[ToolCall] | None = None


class Function(JsonObject):
    """What a model may call; the rest is between the client and the template."""

    name: Text


class Tool(JsonObject):
    """A tool that a model may use; functions are the only kind."""

    type: Literal["function"]
    function: Function


class ChatRequest(CompletionRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[Any, AfterValidator(_tool_choice)] = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    @model_validator(mode="after")
    def _probabilities(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @model_validator(mode="after")
    def _continuation(self) -> ChatRequest:
        if self.add_generation_prompt is False and not self.continue_final_message:
            raise ValueError("add_generation_prompt: false needs continue_final_message: true beside it")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise ValueError("continue_final_message: the last message must be of the role assistant")
        if self.continue_final_message and (self.messages[-1].tool_calls or not self.messages[-1].content):
            raise ValueError("continue_final_message: the last message must have content, and no calls")
        return self

    @property
    def one_call(self) -> bool:
        """Whether an answer ends with its first call."""
        return self.parallel_tool_calls is False

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


EXTENSIONS = (CompletionRequest.model_fields.keys() - {"n", "max_tokens", "stream_options"}) | {"chat_template_kwargs"}
"""Fields of chats that other APIs' requests may have too; they mean the same there."""


class TextRequest(CompletionRequest):
    """POST /v1/completions; prompt: all of its prompts, each a text or token ids."""

    prompt: Annotated[Any, AfterValidator(_prompt)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def top(self) -> int | None:
        return self.logprobs

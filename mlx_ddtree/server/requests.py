"""What the body of a request may hold.  Whatever is not understood and would change the answer is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from mlx_lm.sample_utils import make_logits_processors
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlx_ddtree.decoding.sampling import make_sampler
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.server.errors import ApiError

LEAST_TEMPERATURE = 1e-3
"""Below it a draw's noise would be lost in rounding; 0 is greedy."""


@dataclass(frozen=True)
class Defaults:
    """What counts where a request says nothing; the names are those of the command line."""

    temp: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int = 1024
    repetition_penalty: float | None = None
    repetition_context_size: int = 20


def _known_temperature(value: float) -> float:
    if 0 < value < LEAST_TEMPERATURE:
        raise ValueError(f"a temperature is 0 (greedy) or at least {LEAST_TEMPERATURE}")
    return value


def _without(*allowed: object) -> AfterValidator:
    """A value that changes nothing, of an option that is not offered."""

    def check(value: Any) -> Any:
        if value is not None and value not in allowed:
            raise ValueError(f"{value!r} is not supported here; leave it out or use {allowed[0]!r}")
        return value

    return AfterValidator(check)


Text = Annotated[str, Field(min_length=1)]
ContextSize = Annotated[int, Field(ge=1, le=10**6)]
Penalty = Annotated[float, Field(ge=-100, le=100)]


class Model(BaseModel):
    """A JSON object: types are taken as they stand, unknown names are left alone."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(Model):
    """How to stream."""

    include_usage: bool | None = None


class Sampling(Model):
    """What chats and completions have in common."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100), AfterValidator(_known_temperature)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    repetition_context_size: ContextSize | None = None
    presence_penalty: Penalty | None = None
    presence_context_size: ContextSize | None = None
    frequency_penalty: Penalty | None = None
    frequency_context_size: ContextSize | None = None
    logit_bias: dict[str, Penalty] | None = None
    n: Annotated[int | None, _without(1)] = None
    prefill_compression: Literal["off", "auto", "always"] | None = None
    prefill_threshold: Annotated[int, Field(ge=0, le=2**31)] | None = None
    prefill_keep_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    prefill_positions: Literal["original", "compact"] | None = None
    prefill_protect: Annotated[list[Text], Field(max_length=64)] | None = None
    kv_keep_ratio: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def limit(self) -> int | None:
        return self.max_tokens

    @property
    def top(self) -> int | None:
        """Most probable tokens to report of each position; None: no probabilities at all."""
        return None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(Model):
    """A part of a message; text is the only kind that these models read."""

    type: Literal["text"]
    text: str


class FunctionCall(Model):
    """What a model called earlier in the conversation."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(Model):
    """Likewise."""

    function: FunctionCall


class Message(Model):
    """One message; the template sees the other names too."""

    role: Text
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None


class Function(Model):
    """What a model may call; the rest is between the client and the template."""

    name: Text


class Tool(Model):
    """Likewise."""

    type: Literal["function"]
    function: Function


class ResponseFormat(Model):
    """Free text is the only one that can be promised."""

    type: Annotated[str, _without("text")]


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[Any, _without("auto", "none")] = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    functions: Annotated[Any, _without(None)] = None
    modalities: Annotated[Any, _without(["text"])] = None

    @model_validator(mode="after")
    def _probabilities(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class TextRequest(Sampling):
    """POST /v1/completions."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Annotated[bool | None, _without(False)] = None
    best_of: Annotated[int | None, _without(1)] = None
    suffix: Annotated[str | None, _without(None, "")] = None

    @property
    def top(self) -> int | None:
        return self.logprobs


Request = TypeVar("Request", ChatRequest, TextRequest)


def parse(kind: type[Request], raw: bytes) -> tuple[Request, dict[str, Any]]:
    """The request, and the body as it came.  Raises ApiError 400."""
    try:
        body = json.loads(raw)
        if b"\\ud" in raw.lower():  # halves of surrogate pairs are no text; tokenizers and UTF-8 know none
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    try:
        return kind.model_validate(body), body
    except ValidationError as error:
        worst = max(error.errors(include_url=False, include_input=False), key=lambda e: len(e["loc"]))
        where = ".".join(str(part) for part in worst["loc"])
        param = str(worst["loc"][0]) if worst["loc"] else None
        message = worst["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{where}: {message}" if where else message, param=param) from None


def bias(request: Sampling, vocab_size: int) -> dict[int, float]:
    """Token id -> what is added to its logit.  Raises ApiError 400."""
    given = request.logit_bias or {}
    if not all(key.isascii() and key.isdigit() and int(key[:10]) < vocab_size for key in given):
        raise ApiError(400, f"logit_bias: its keys are token ids, 0 to {vocab_size - 1}", param="logit_bias")
    return {int(key): value for key, value in given.items()}


def compression(request: Sampling, default: PrefillCompression) -> PrefillCompression:
    """How long prompts of this request are compressed; the scorer is the server's."""
    names = {"prefill_compression": "mode", "prefill_protect": "protect"}
    said = {name: getattr(request, name) for name in vars(request) if name.startswith("prefill_")}
    changes = {names.get(k, k.removeprefix("prefill_")): v for k, v in said.items() if v is not None}
    return replace(default, **changes)


def decoding_options(request: Sampling, defaults: Defaults, logit_bias: dict[int, float]) -> dict[str, Any]:
    """For `stream_generate`; makes arrays, so it belongs to the thread that decodes."""

    def pick(value: Any, default: Any) -> Any:
        return default if value is None else value

    sampler = make_sampler(
        pick(request.temperature, defaults.temp),
        pick(request.top_p, defaults.top_p),
        pick(request.min_p, defaults.min_p),
        top_k=pick(request.top_k, defaults.top_k),
        seed=pick(request.seed, defaults.seed),
    )
    processors = make_logits_processors(
        logit_bias,
        pick(request.repetition_penalty, defaults.repetition_penalty),
        pick(request.repetition_context_size, defaults.repetition_context_size),
        request.presence_penalty,
        pick(request.presence_context_size, 20),
        request.frequency_penalty,
        pick(request.frequency_context_size, 20),
    )
    limit = pick(request.limit, defaults.max_tokens)
    return {"sampler": sampler, "logits_processors": processors, "max_tokens": limit, "stop": request.stops}

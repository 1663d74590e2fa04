"""From a request to the options of decoding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlx_lm.sample_utils import make_logits_processors

from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.requests import CompletionRequest
from mlx_ddtree.server.settings import RequestDefaults

LEAST_TEMPERATURE = 1e-3
"""Below it a draw's noise is lost in rounding and the most probable token is drawn: such a request is greedy."""
SAMPLING = ("top_p", "min_p", "min_tokens_to_keep", "top_k", "xtc_probability", "xtc_threshold", "seed")
"""Options of sampling that a request names as `stream_generate` does."""
PENALTY_CONTEXT = 20
"""Tokens that presence and frequency penalties look back, as in mlx-lm."""


def logit_bias_of(request: CompletionRequest, vocab_size: int) -> dict[int, float]:
    """Token id -> what is added to its logit.

    Every id is known to lie in the vocabulary before an array sees it: an index outside of an array is a write to
    memory that belongs to something else.  Raises ApiError 400.
    """
    bias = {}
    for key, value in (request.logit_bias or {}).items():
        token = _token_id(key)
        if token is None or token >= vocab_size:
            raise ApiError(400, f"logit_bias: its keys are token ids, 0 to {vocab_size - 1}", param="logit_bias")
        bias[token] = value
    return bias


def _token_id(key: str) -> int | None:
    """The number that a key spells as numbers are written: digits alone, without zeros in front."""
    if not key.isascii() or not key.isdigit() or len(key) > 10:
        return None
    token = int(key)
    return token if str(token) == key else None


def compression_of(request: CompletionRequest, default: PrefillCompression) -> PrefillCompression:
    """How long prompts of this request are compressed; the scorer is the server's."""
    asked: dict[str, Any] = {
        "mode": request.prefill_compression,
        "threshold": request.prefill_threshold,
        "keep_ratio": request.prefill_keep_ratio,
        "positions": request.prefill_positions,
        "protect": request.prefill_protect,
    }
    changes = {name: value for name, value in asked.items() if value is not None}
    return replace(default, **changes)


def decoding_options_of(
    request: CompletionRequest, defaults: RequestDefaults, logit_bias: dict[int, float], number: int = 0
) -> dict[str, Any]:
    """Keyword arguments of `stream_generate`; number: of the answer, among several to one prompt.

    Some of them hold arrays, so this belongs to the thread that decodes.
    """

    def pick(value: Any, default: Any) -> Any:
        return default if value is None else value

    temperature = pick(request.temperature, defaults.temp)
    if temperature < LEAST_TEMPERATURE:
        temperature = 0.0
    processors = make_logits_processors(
        logit_bias,
        pick(request.repetition_penalty, defaults.repetition_penalty),
        pick(request.repetition_context_size, defaults.repetition_context_size),
        request.presence_penalty,
        pick(request.presence_context_size, PENALTY_CONTEXT),
        request.frequency_penalty,
        pick(request.frequency_context_size, PENALTY_CONTEXT),
    )
    options = {name: pick(getattr(request, name), getattr(defaults, name)) for name in SAMPLING}
    if options["seed"] is not None:
        options["seed"] += number
    return options | {
        "temp": temperature,
        "logits_processors": processors,
        "max_tokens": pick(request.limit, defaults.max_tokens),
        "stop": pick(request.stop, defaults.stop),
    }

"""From a body's bytes to a request, or to a sentence that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.fields import check_fields
from mlx_ddtree.server.requests import ChatRequest, TextRequest
from mlx_ddtree.untrusted import read_json

RequestBody = TypeVar("RequestBody", ChatRequest, TextRequest)

SENTENCES = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_type": "must be a text",
    "too_long": "may have {max_length} entries at most",
    "too_short": "must not be empty",
}
"""What pydantic's kinds of errors are called here; pydantic's own sentences name Python's classes."""


def body_of(raw: bytes) -> dict[str, Any]:
    """A body's JSON object.  Raises ApiError 400."""
    try:
        return read_json(raw, name="the body", error=MlxDdtreeError)
    except MlxDdtreeError as error:
        raise ApiError(400, str(error), code="invalid_json") from None


def parse(kind: type[RequestBody], raw: bytes) -> tuple[RequestBody, dict[str, Any]]:
    """The request, and the body as it came.  Raises ApiError 400."""
    body = body_of(raw)
    check_fields(kind, body)
    try:
        return kind.model_validate(body), body
    except ValidationError as error:
        raise refusal_of(error, kind) from None


def refusal_of(error: ValidationError, kind: type[BaseModel], within: str = "") -> ApiError:
    """The first of pydantic's errors as a sentence; within: what stands before the names of `kind`'s fields."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    message = sentence(first["type"], first["msg"], first.get("ctx", {}))
    if place:
        message = f"{within}{'.'.join(place)}: {message}"
    blamed = within.partition(".")[0] or (place[0] if place else message.partition(":")[0])
    return ApiError(400, message, param=blamed if within or blamed in kind.model_fields else None)


def sentence(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """One of pydantic's errors in words for whoever wrote the request."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in SENTENCES:
        return SENTENCES[kind].format_map(context)
    return "has a value that cannot be used"

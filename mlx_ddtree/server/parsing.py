"""From a body's bytes to a request, or to a sentence that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.fields import check_fields
from mlx_ddtree.server.requests import ChatRequest, TextRequest

DEEPEST = 100
"""Levels of lists and objects in a body; tools' schemas need some twenty."""

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


def parse(kind: type[RequestBody], raw: bytes) -> tuple[RequestBody, dict[str, Any]]:
    """The request, and the body as it came.  Raises ApiError 400."""
    body = read_json_object(raw)
    check_fields(kind, body)
    try:
        return kind.model_validate(body), body
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = [str(part) for part in first["loc"]]
        message = sentence(first["type"], first["msg"], first.get("ctx", {}))
        if place:
            message = f"{'.'.join(place)}: {message}"
        raise ApiError(400, message, param=place[0] if place else None) from None


def sentence(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """One of pydantic's errors in words for whoever wrote the request."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in SENTENCES:
        return SENTENCES[kind].format_map(context)
    return "has a value that cannot be used"


def read_json_object(raw: bytes) -> dict[str, Any]:
    """Standard JSON of a bounded depth that holds text only.  Raises ApiError 400 with code invalid_json."""
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _invalid(f"the body is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise _invalid("the body is not JSON: it is not UTF-8") from None
    except RecursionError:
        raise _invalid(f"the body is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:  # Python reads no integer of thousands of digits
        raise _invalid(f"the body has a number that cannot be read: {str(error).partition(';')[0]}") from None
    if not isinstance(body, dict):
        raise _invalid("the body must be a JSON object")
    _check_depth(body)
    if b"\\ud" in raw.lower():
        _check_surrogates(body)
    return body


def _check_depth(body: dict[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for item in level:
            members = item.values() if isinstance(item, dict) else item
            inner.extend(member for member in members if isinstance(member, dict | list))
        if not inner:
            return
        level = inner
    raise _invalid(f"the body is nested deeper than {DEEPEST} levels")


def _check_surrogates(body: dict[str, Any]) -> None:
    """Halves of surrogate pairs are no text: neither tokenizers nor UTF-8 know them."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _invalid("a text in the body has half of a surrogate pair (\\ud800 to \\udfff)") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _invalid(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_json")

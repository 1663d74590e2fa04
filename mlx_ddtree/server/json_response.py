"""JSON on the wire: ASCII, because a text may hold half of a surrogate pair, which UTF-8 cannot."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from mlx_ddtree.server.errors import ApiError


class AsciiJson(JSONResponse):
    """A JSON response."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def error_response(error: ApiError, path: str) -> AsciiJson:
    """A refusal as the clients of a path read it."""
    body = error.messages_body() if path.removeprefix("/v1").startswith("/messages") else error.body()
    return AsciiJson(body, error.status, headers=error.headers)


def server_sent(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, allow_nan=False)}\n\n"


def named_event(data: dict[str, Any]) -> str:
    """A server-sent event that has its type's name."""
    return f"event: {data['type']}\n{server_sent(data)}"

"""Refusals in the formats of OpenAI's API and of Anthropic's."""

from __future__ import annotations

import math
from typing import Any

_TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}
_MESSAGES_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


TOO_LONG = "context_length_exceeded"
"""The code of a prompt that leaves no room for an answer."""


class ApiError(Exception):
    """What a client is told.

    param: the field of the body that is to blame.  code: for programs.  headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """What OpenAI's clients read."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def responses_code(self) -> str:
        """Why a response of OpenAI's Responses API failed; agents look for the code of a prompt that is too long."""
        if self.code == TOO_LONG:
            return TOO_LONG
        if self.status == 429:
            return "rate_limit_exceeded"
        return "server_error" if self.status >= 500 else "invalid_prompt"

    def messages_body(self) -> dict[str, Any]:
        """What Anthropic's clients read; agents shorten a conversation when they are told that it is too long."""
        message = str(self)
        if self.code == TOO_LONG:
            message = f"prompt is too long: {message}"
        kind = _MESSAGES_TYPES.get(self.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}}


def internal_error() -> ApiError:
    """The answer to whatever went wrong inside; the log has the details, the client has not."""
    return ApiError(500, "the server made an error on this request; its log says more", code="internal_error")


def queue_full(waiting: int, recent_seconds: float) -> ApiError:
    """The queue takes no more; recent_seconds: that a request has taken lately."""
    seconds = math.ceil(min(max(recent_seconds, 1), 60))
    message = f"{waiting} requests are waiting already; try again in {seconds} s"
    return ApiError(429, message, code="queue_full", headers={"Retry-After": str(seconds)})


def stopping() -> ApiError:
    """Nothing is begun any more."""
    return ApiError(503, "the server is stopping", code="stopping")

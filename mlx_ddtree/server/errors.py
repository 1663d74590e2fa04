"""Refusals in OpenAI's format."""

from __future__ import annotations

from typing import Any

_TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}


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
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def internal_error() -> ApiError:
    """The answer to whatever went wrong inside; the log has the details, the client has not."""
    return ApiError(500, "the server made an error on this request; its log says more", code="internal_error")

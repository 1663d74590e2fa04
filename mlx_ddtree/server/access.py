"""Who may ask: API key, host names, origins."""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.json_response import error_response

OPEN = ("/health",)
"""Paths that need no key."""


class ApiKey:
    """Lets requests through that carry the key: `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self.accepts(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        message = "this server needs its API key: send 'Authorization: Bearer KEY'"
        error = ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        await error_response(error)(scope, receive, send)

    def accepts(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self.key)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def middleware(host: str, key: str | None, origins: list[str]) -> list[Middleware]:
    """What stands before the routes.

    Without a key a server on the loopback interface takes only requests to its own names: a web page can
    make its own name point at 127.0.0.1.  origins: of web pages that may use the server.
    """
    layers = []
    if is_loopback(host) and not key:
        names = ["localhost", "127.0.0.1", "[", host]  # starlette takes what stands before the first colon
        layers.append(Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False))
    if origins:
        layers.append(Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]))
    if key:
        layers.append(Middleware(ApiKey, key=key))
    return layers

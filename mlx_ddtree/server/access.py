"""Who may ask: API key, host names, origins."""

from __future__ import annotations

import hmac
import ipaddress
import re

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.json_response import error_response
from mlx_ddtree.server.settings import ServerSettings

OPEN_PATHS = ("/health",)
"""Paths that need no key."""
_HOST_AND_PORT = re.compile(r"(?P<name>\[[^\[\]]+\]|[^\[\]:@/]+)(:[0-9]*)?")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class ApiKey:
    """Lets requests through that carry the key: `Authorization: Bearer KEY`, or `x-api-key: KEY`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self.accepts(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        message = "this server needs its API key: send 'Authorization: Bearer KEY'"
        error = ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        await error_response(error, scope["path"])(scope, receive, send)

    def accepts(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = [headers.get("x-api-key", ""), key if scheme.lower() == "bearer" else ""]
        right = [hmac.compare_digest(text.strip().encode(), self.key) for text in given]
        return any(right)


class HostNames:
    """Lets requests through whose Host header has one of some names.

    A web page can make its own name point at this machine, and its requests then reach a server here; their Host
    header gives them away.
    """

    def __init__(self, app: ASGIApp, names: list[str]) -> None:
        self.app = app
        self.names = {host_name(name) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = Headers(scope=scope).get("host", "")
        if scope["type"] != "http" or "*" in self.names or host_name(header) in self.names:
            await self.app(scope, receive, send)
            return
        message = f"this server does not answer to the host name {header!r}: start it with --allowed-hosts NAME"
        if host_name(header):
            message = message.replace("NAME", host_name(header))
        await error_response(ApiError(400, message, code="invalid_host"), scope["path"])(scope, receive, send)


def host_name(header: str) -> str:
    """The name in a Host header in lower case, without its port and an IPv6 address's brackets.

    A header of another form has no name: "".
    """
    text = header.strip().lower()
    if text.count(":") > 1 and not text.startswith("["):  # an IPv6 address without brackets has no port
        return text
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        return ""
    return found["name"].strip("[]")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def access_middleware(settings: ServerSettings) -> list[Middleware]:
    """What stands before the routes and lets requests through or refuses them.

    Host names are checked where --allowed-hosts names some, and on a server of this machine alone that has no key.
    """
    layers = []
    private = is_loopback(settings.host) and not settings.api_key
    if private or settings.allowed_hosts:
        names = [*LOOPBACK_NAMES, settings.host, *settings.allowed_hosts]
        layers.append(Middleware(HostNames, names=names))
    if settings.origins:
        cors = Middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"])
        layers.append(cors)
    if settings.api_key:
        layers.append(Middleware(ApiKey, key=settings.api_key))
    return layers

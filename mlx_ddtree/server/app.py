"""The routes, and how refusals are answered."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlx_ddtree.server.access import access_middleware
from mlx_ddtree.server.bodies import LingeringClose
from mlx_ddtree.server.dialects import CHAT, MESSAGES, RESPONSES, TEXT
from mlx_ddtree.server.engine import Engine
from mlx_ddtree.server.errors import ApiError, internal_error
from mlx_ddtree.server.json_response import error_response
from mlx_ddtree.server.service import Service
from mlx_ddtree.server.settings import ServerSettings


def make_app(engine: Engine, settings: ServerSettings) -> Starlette:
    service = Service(engine, settings)
    routes = [Route("/health", service.health), Route("/metrics", service.metrics)]
    for base in ("/v1", ""):  # some clients are told the server's address, and leave the version out
        routes += [
            Route(f"{base}/chat/completions", service.answer(CHAT), methods=["POST"]),
            Route(f"{base}/completions", service.answer(TEXT), methods=["POST"]),
            Route(f"{base}/messages", service.answer(MESSAGES), methods=["POST"]),
            Route(f"{base}/messages/count_tokens", service.count_tokens(MESSAGES), methods=["POST"]),
            Route(f"{base}/responses", service.answer(RESPONSES), methods=["POST"]),
            Route(f"{base}/responses/input_tokens", service.count_tokens(RESPONSES), methods=["POST"]),
            Route(f"{base}/responses/{{name}}/cancel", service.stored, methods=["POST"]),
            Route(f"{base}/responses/{{name:path}}", service.stored, methods=["GET", "DELETE"]),
            Route(f"{base}/models", service.models),
            Route(f"{base}/models/{{name:path}}", service.model),
        ]

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error_response(error, request.url.path)

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        return error_response(ApiError(error.status_code, f"{request.method} {path}: {error.detail}"), path)

    async def failed(request: Request, error: Exception) -> Response:
        return error_response(internal_error(), request.url.path)

    return Starlette(
        routes=routes,
        middleware=[Middleware(LingeringClose), *access_middleware(settings)],
        exception_handlers={ApiError: refused, HTTPException: no_route, Exception: failed},
    )

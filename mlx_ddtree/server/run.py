"""From options to a running server, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from functools import partial
from pathlib import Path

import uvicorn
from mlx_lm.utils import _parse_size

from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.stored.folder import StoredFolder
from mlx_ddtree.programs import arguments
from mlx_ddtree.programs.loading import load_pair
from mlx_ddtree.server.access import is_loopback
from mlx_ddtree.server.app import make_app
from mlx_ddtree.server.connections import BoundedConnection
from mlx_ddtree.server.engine import Engine
from mlx_ddtree.server.settings import RequestDefaults, ServerSettings

__all__ = ["end_quietly_on_sigterm", "is_loopback", "listen", "make_engine", "make_settings", "serve"]


SHARED_OPTIONS = (
    *("method", "tree_budget", "block_size", "parity", "prefill_step_size", "prefill_seconds", "memory"),
    *("max_kv_size", "kv_bits", "kv_group_size", "quantized_kv_start"),
)
"""Options of the command line that count for every request alike."""


class GracefulServer(uvicorn.Server):
    """On SIGINT or SIGTERM nothing new is begun, and what runs may finish within `shutdown_seconds`."""

    engine: Engine
    shutdown_seconds: float

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.engine.drain()
        timer = asyncio.get_running_loop().call_later(self.shutdown_seconds, self.engine.cut)
        await super().shutdown(sockets)
        timer.cancel()


def make_server(
    engine: Engine, settings: ServerSettings, shutdown_seconds: float = 10, verbose: bool = False
) -> GracefulServer:
    """A server that is not started."""
    config = uvicorn.Config(
        make_app(engine, settings),
        http=partial(BoundedConnection, limits=settings.limits),  # type: ignore[arg-type]  # called like a class
        ws="none",
        log_level="info" if verbose else "warning",
        lifespan="off",
        timeout_graceful_shutdown=int(shutdown_seconds) + 5,  # for clients that do not take what is sent
    )
    server = GracefulServer(config)
    server.engine = engine
    server.shutdown_seconds = shutdown_seconds
    return server


def serve(
    listener: socket.socket,
    engine: Engine,
    settings: ServerSettings,
    shutdown_seconds: float = 10,
    verbose: bool = False,
) -> None:
    """Answer requests until a signal comes."""
    make_server(engine, settings, shutdown_seconds, verbose).run(sockets=[listener])


def make_settings(args: argparse.Namespace, key: str | None) -> ServerSettings:
    """What the options say.

    key: counts unless --api-key gives another.  Raises OptionError.
    """
    options = arguments.generation_options(args)  # a wrong option is refused before loading
    names = RequestDefaults.__dataclass_fields__
    return ServerSettings(
        model=args.served_model_name or args.model or "mlx_ddtree-demo",
        host=args.host,
        api_key=args.api_key or key or None,
        allowed_hosts=args.allowed_hosts,
        origins=args.allowed_origins,
        defaults=RequestDefaults(**{name: getattr(options, name) for name in names}),
        template=args.chat_template_args,
        request_seconds=args.request_timeout,
        compression=options.make_compression(),
        kv_keep_ratio=options.kv_keep_ratio,
    )


def make_engine(args: argparse.Namespace) -> Engine:
    """An engine that is not started.  Raises OptionError."""
    if args.queue_size < 0 or args.prompt_cache_size < 0:
        raise OptionError("--queue-size and --prompt-cache-size must be at least 0")
    options = arguments.generation_options(args)
    return Engine(
        lambda: load_pair(args),
        {name: getattr(options, name) for name in SHARED_OPTIONS} | {"kv_budget": options.make_icecache()},
        queue_size=args.queue_size,
        cache_size=args.prompt_cache_size,
        cache_bytes=cache_bytes(args),
        folder=make_folder(args, options),
    )


def make_folder(args: argparse.Namespace, options: GenerationOptions) -> StoredFolder | None:
    """The folder of --prompt-cache-dir, which no other process has.  Raises OptionError."""
    if args.prompt_cache_dir is None:
        return None
    for name in ("max_kv_size", "kv_bits", "kv_budget"):
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(f"--prompt-cache-dir keeps plain caches, and {flag} makes others: leave out one of them")
    return StoredFolder(Path(args.prompt_cache_dir).expanduser(), bytes_of(args, "prompt_cache_dir_bytes"))


def cache_bytes(args: argparse.Namespace) -> int:
    """What the sessions may take: by default an eighth of the machine's memory."""
    if args.prompt_cache_bytes is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
    return bytes_of(args, "prompt_cache_bytes")


def bytes_of(args: argparse.Namespace, name: str) -> int:
    """An option's '500MB' -> bytes.  Raises OptionError."""
    text = getattr(args, name)
    try:
        return int(_parse_size(text))
    except (ArithmeticError, KeyError, ValueError):
        raise OptionError(f"--{name.replace('_', '-')} {text!r} is not a size like 500MB or 4GB") from None


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket before anything else, so that nothing is loaded for a port that is taken.  Raises OptionError."""
    if not 0 <= port < 65536:
        raise OptionError(f"--port {port} is out of range: use 1 to 65535, or 0 for any")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise OptionError(f"{host} is no address of this machine: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OptionError(f"{host}:{port} cannot be listened on: {error.strerror}; try another --port") from error
    return listener


def end_quietly_on_sigterm() -> None:
    """uvicorn raises the signal again after a graceful end, which is then nothing to die of."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)

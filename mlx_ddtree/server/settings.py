"""How a server is set up: its names and keys, what requests get by default, and what one client may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_ddtree.pflash.compress import OFF, PrefillCompression

MEBIBYTE = 2**20


@dataclass(frozen=True)
class RequestDefaults:
    """What counts where a request says nothing; the names are those of the command line."""

    temp: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    min_tokens_to_keep: int = 1
    top_k: int = 0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    seed: int | None = None
    max_tokens: int = 1024
    stop: Sequence[str] = ()
    repetition_penalty: float | None = None
    repetition_context_size: int = 20


@dataclass(frozen=True)
class RequestLimits:
    """What clients may take of a server before they have said anything that it could check.

    connections: open at once.
    header_seconds: for a request's line and headers.
    body_seconds: for its body.
    body_bytes: of one body.
    unfinished_bytes: of the bodies of all requests that are not answered yet.  The first `small_bytes` of a body
        do not count, so that small requests pass while large ones wait.
    send_seconds: without a byte taken, after which a client that does not read its answer is let go.
    unread_bytes: of one answer that is said and not taken; more of it is not made.
    """

    connections: int = 128
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    body_bytes: int = 16 * MEBIBYTE
    unfinished_bytes: int = 64 * MEBIBYTE
    small_bytes: int = MEBIBYTE // 16
    send_seconds: float = 60.0
    unread_bytes: int = 4 * MEBIBYTE


@dataclass
class ServerSettings:
    """How to serve.

    model: the name that clients use.
    host: the address that is listened on.
    allowed_hosts: further names that clients may address the server by.
    origins: of web pages that may use the server.
    request_seconds: after which a request is given up; None: never.
    template: options of the chat template.
    compression, kv_keep_ratio: of long prompts, unless a request says otherwise.
    """

    model: str
    host: str = "127.0.0.1"
    api_key: str | None = None
    allowed_hosts: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    defaults: RequestDefaults = field(default_factory=RequestDefaults)
    limits: RequestLimits = field(default_factory=RequestLimits)
    template: Mapping[str, Any] = field(default_factory=dict)
    request_seconds: float | None = None
    compression: PrefillCompression = OFF
    kv_keep_ratio: float | None = None

"""The two sides of a run on several machines: rank 0, which leads, and the ranks that follow."""

from __future__ import annotations

import atexit
import json
import os
import platform
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from itertools import count
from typing import Any

import mlx.core as mx

from mlx_ddtree.distributed.meeting import launched_group, meet
from mlx_ddtree.distributed.watch import Watch
from mlx_ddtree.errors import RankError

Order = list[Any]
"""A name and its arguments, as JSON has them."""


class Leader:
    """Rank 0's side.

    sent_bytes: of orders, to each of the others.
    loaded: targets so far; numbers: for what has to be told apart.
    """

    def __init__(self, group: mx.distributed.Group) -> None:
        self.group, self.size = group, group.size()
        self.peers = meet(group, card())
        self.watch = Watch(self.peers)
        self.sent_bytes, self.loaded, self.numbers = 0, 0, count()
        self._orders: deque[Order] = deque()
        self._stopped = False
        atexit.register(self.stop)
        if strangers := [peer.name for peer in self.peers if peer.card["versions"] != versions()]:
            raise RankError(f"{', '.join(strangers)} runs other versions than rank 0 ({versions()})")

    def tell(self, *order: Any) -> None:
        """Queue an order; it goes out with the next `send`.  May be called by the garbage collector."""
        self._orders.append(list(order))

    def send(self, *order: Any) -> None:
        """Send what is queued, then this."""
        orders = [self._orders.popleft() for _ in range(len(self._orders))]
        message = json.dumps([*orders, order], separators=(",", ":")).encode()
        self.sent_bytes += len(message)
        for peer in self.peers:
            peer.work.send_bytes(message)

    def answers(self) -> list[Any]:
        """Of an order that was sent and that everybody answers, by rank.  Raises RankError where one could not obey."""
        answers = [json.loads(peer.work.recv_bytes()) for peer in self.peers]
        wrong = [f"{p.name}: {a['error']}" for p, a in zip(self.peers, answers, strict=True) if "error" in a]
        if wrong:
            raise RankError("; ".join(wrong))
        return [answer["value"] for answer in answers]

    def stop(self) -> None:
        """The others may go."""
        if isinstance(getattr(sys, "last_value", None), RuntimeError):  # a program that ends by MLX's error
            self.watch.await_news()
        if not self._stopped:
            self._stopped = True
            with suppress(OSError):
                self.send("stop")
            self.watch.end()


class Follower:
    """Any other rank's side."""

    def __init__(self, group: mx.distributed.Group) -> None:
        self.group, self.rank = group, group.rank()
        (self.leader,) = meet(group, card())
        self.watch = Watch([self.leader])

    def orders(self) -> Iterator[Order]:
        """Until rank 0 stops."""
        while True:
            for order in json.loads(self.leader.work.recv_bytes()):
                if order[0] == "stop":
                    return
                yield order

    def answer(self, value: Any = None, error: str | None = None) -> None:
        answer = {"value": value} if error is None else {"error": error}
        self.leader.work.send_bytes(json.dumps(answer).encode())


Ranks = Leader | Follower


@cache
def join() -> Ranks | None:
    """This process's side, if mlx.launch has started it as one of several; all of them must call it.

    Raises RankError.
    """
    group = launched_group()
    if group is None:
        return None
    return Leader(group) if group.rank() == 0 else Follower(group)


def card() -> dict[str, Any]:
    """What a rank says of itself."""
    return {"host": socket.gethostname(), "process": os.getpid(), "versions": versions()}


def versions() -> dict[str, str]:
    """Ranks with different ones might compute different things."""
    return {name: version(name) for name in ("mlx", "mlx-lm", "mlx-ddtree")} | {"python": platform.python_version()[:4]}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals concern the main thread only
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)

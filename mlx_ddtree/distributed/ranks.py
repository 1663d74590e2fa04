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
"""What rank 0 tells another rank to do: the name of a method and its arguments, as JSON has them."""


class Leader:
    """Rank 0's side.

    sent_bytes: bytes of orders that each other rank was sent.
    loaded: how many targets have been loaded so far.
    numbers: a new number for each cache and each mark, by which all ranks know it.
    """

    def __init__(self, group: mx.distributed.Group) -> None:
        self.group = group
        self.size = group.size()
        self.peers = meet(group, card())
        self.watch = Watch(self.peers)
        self.sent_bytes = 0
        self.loaded = 0
        self.numbers = count()
        self._orders: deque[Order] = deque()
        self._stopped = False
        atexit.register(self.stop)
        strangers = [peer.name for peer in self.peers if peer.card["versions"] != versions()]
        if strangers:
            raise RankError(f"{', '.join(strangers)} runs other versions than rank 0 ({versions()})")

    def tell(self, *order: Any) -> None:
        """Queue an order; it goes out with the next `send`.  May be called by the garbage collector."""
        self._orders.append(list(order))

    def send(self, *order: Any) -> None:
        """Send the queued orders, then this one."""
        orders = [self._orders.popleft() for _ in range(len(self._orders))]
        message = json.dumps([*orders, order], separators=(",", ":")).encode()
        self.sent_bytes += len(message)
        for peer in self.peers:
            peer.work.send_bytes(message)

    def answers(self) -> list[Any]:
        """What the other ranks answer to the last order, by rank.  Raises RankError where one could not obey."""
        values = []
        wrong = []
        for peer in self.peers:
            answer = json.loads(peer.work.recv_bytes())
            if "error" in answer:
                wrong.append(f"{peer.name}: {answer['error']}")
            else:
                values.append(answer["value"])
        if wrong:
            raise RankError("; ".join(wrong))
        return values

    def stop(self) -> None:
        """Let the other ranks go: this one needs them no more."""
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
        self.group = group
        self.rank = group.rank()
        (self.leader,) = meet(group, card())
        self.watch = Watch([self.leader])

    def orders(self) -> Iterator[Order]:
        """Yield what rank 0 tells, until rank 0 stops."""
        while True:
            for order in json.loads(self.leader.work.recv_bytes()):
                if order[0] == "stop":
                    return
                yield order

    def answer(self, value: Any = None, error: str | None = None) -> None:
        """Tell rank 0 how the last order went: a value, or the text of an error."""
        answer = {"value": value}
        if error is not None:
            answer = {"error": error}
        self.leader.work.send_bytes(json.dumps(answer).encode())


Ranks = Leader | Follower


@cache
def join() -> Ranks | None:
    """This process's side, if mlx.launch has started it as one of several; all of those must call `join`.

    Raises RankError.
    """
    group = launched_group()
    if group is None:
        return None
    if group.rank() == 0:
        return Leader(group)
    return Follower(group)


def card() -> dict[str, Any]:
    """What a rank says of itself."""
    return {"host": socket.gethostname(), "process": os.getpid(), "versions": versions()}


def versions() -> dict[str, str]:
    """Versions of what computes: ranks that differ in them might compute different things."""
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

"""Whether every rank is still there: a thread that hears of a rank that ends, fails or falls silent.

A thread that waits in a collective cannot be woken, so a lost rank ends the process: what is going on cannot be
finished without it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from time import monotonic, sleep

from mlx_ddtree.distributed.meeting import Peer
from mlx_ddtree.errors import RankError

EXIT_CODE = 75
"""Of a process that ends because a rank is lost; sysexits.h calls it a temporary failure."""
BEAT_SECONDS = 1.0
SILENCE_SECONDS = 30.0
"""A rank that says nothing for so long is lost; $MLX_DDTREE_RANK_TIMEOUT overrules it."""
GRACE_SECONDS = 0.5
BEAT = b"."
GOODBYE = b"bye"


class Watch:
    """The thread that watches the other ranks' pulses.

    on_lost: called with the reason, a moment before the process ends."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self.peers = {peer.pulse: peer for peer in peers}
        self.on_lost: list[Callable[[str], None]] = []
        self.timeout = silence_seconds()
        self._ended = threading.Event()
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mlx_ddtree ranks", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Say goodbye: all is well, and the other ranks may go."""
        self._ended.set()
        self._tell(GOODBYE)

    def report(self, reason: str) -> None:
        """Tell the other ranks why this one ends."""
        self._ended.set()
        self._tell(reason.encode())

    def await_news(self, seconds: float = 3.0) -> None:
        """After an error that a lost rank may have caused: if one did, this does not return."""
        self._thread.join(seconds)

    def _run(self) -> None:
        heard = dict.fromkeys(self.peers, monotonic())
        next_beat = 0.0
        while not self._ended.is_set() and heard:
            if monotonic() >= next_beat:
                self._tell(BEAT)
                next_beat = monotonic() + BEAT_SECONDS
            for ready in wait(list(heard), BEAT_SECONDS):
                peer = self.peers[ready]  # type: ignore[index]
                try:
                    message = peer.pulse.recv_bytes()
                except (EOFError, OSError):
                    return self._lost(f"{peer.name} is gone")
                if message == GOODBYE:
                    del heard[peer.pulse]
                elif message == BEAT:
                    heard[peer.pulse] = monotonic()
                else:
                    return self._lost(message.decode(errors="replace"))
            for connection, last in heard.items():
                if monotonic() - last > self.timeout:
                    return self._lost(f"{self.peers[connection].name} has said nothing for {self.timeout:.0f} s")

    def _tell(self, message: bytes) -> None:
        with self._sending:
            for connection in self.peers:
                with suppress(OSError):  # its end is noticed where it is read
                    connection.send_bytes(message)

    def _lost(self, reason: str) -> None:
        if self._ended.is_set():
            return
        self._tell(reason.encode())
        os.write(2, f"\nerror: {reason}; the model needs all its machines: start it again\n".encode())
        for tell in self.on_lost:
            tell(reason)
            sleep(GRACE_SECONDS)
        flushing = threading.Thread(target=sys.stdout.flush, daemon=True)  # whoever holds its lock may be stuck
        flushing.start()
        flushing.join(1)
        os._exit(EXIT_CODE)


def silence_seconds() -> float:
    """Seconds of silence after which a rank is lost.  Raises RankError."""
    text = os.environ.get("MLX_DDTREE_RANK_TIMEOUT", "")
    try:
        return float(text or SILENCE_SECONDS)
    except ValueError:
        raise RankError(f"$MLX_DDTREE_RANK_TIMEOUT is {text!r}, and not a number of seconds") from None

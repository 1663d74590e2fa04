"""How ranks that mlx.launch has started find each other: two TCP connections from every other rank to rank 0.

MLX's collectives carry the model's numbers, but nobody can wait in one for long without spinning, or learn there that
a machine is gone.  So what to do next, and whether everybody is still there, goes over connections of our own: `work`
and `pulse`.  Where rank 0 listens, and the key that lets one in, is told by one collective.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from time import monotonic
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ddtree.errors import RankError

LAUNCHED = ("MLX_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Variables by which mlx.launch, or mpirun under it, tells a process that it is one of several."""
MEETING_SECONDS = 60.0
HANDSHAKE_SECONDS = 10
CARD_BYTES = 512


@dataclass(frozen=True)
class Peer:
    """Another rank and the connections to it.  card: what it says of itself (versions, its machine's name)."""

    rank: int
    card: dict[str, Any]
    work: Connection
    pulse: Connection

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.card['host']} (process {self.card['process']})"


def launched_group() -> mx.distributed.Group | None:
    """The group of ranks that this process belongs to; None if it is alone.  Raises RankError."""
    if not any(name in os.environ for name in LAUNCHED):
        return None
    try:
        group = mx.distributed.init()
    except RuntimeError as error:
        raise RankError(f"this rank does not reach the others: {error}") from error
    if group.size() == 1:
        return None
    return group


def meet(group: mx.distributed.Group, card: dict[str, Any]) -> list[Peer]:
    """Connect the ranks of a group: rank 0 gets every other rank, the others get rank 0.  Raises RankError.

    card: what this rank says of itself.
    """
    if group.rank() > 0:
        place = json.loads(_tell_all(group, None))
        return [_join(place["host"], place["port"], bytes.fromhex(place["key"]), group.rank(), card)]
    key = secrets.token_bytes(16)
    host = control_host()
    try:
        listener = socket.create_server((host, 0), family=_family(host))
    except OSError as error:
        _tell_all(group, json.dumps({"host": host, "port": 0, "key": key.hex()}))  # the others wait for some word
        raise RankError(
            f"rank 0 cannot listen on {host}: {error.strerror}; name another of its addresses in $MLX_DDTREE_HOST"
        ) from error
    with listener:
        _tell_all(group, json.dumps({"host": host, "port": listener.getsockname()[1], "key": key.hex()}))
        return _wait_for(listener, key, group.size(), card)


def control_host() -> str:
    """An address of rank 0 that the other ranks reach: the one that MLX's own connections use."""
    named = os.environ.get("MLX_DDTREE_HOST")
    if named:
        return named
    hostfile = os.environ.get("MLX_HOSTFILE")
    if hostfile:
        with open(hostfile, encoding="utf-8") as file:
            return _without_port(json.load(file)[0][0])
    coordinator = os.environ.get("MLX_JACCL_COORDINATOR")
    if coordinator:
        return _without_port(coordinator)
    return os.environ.get("NCCL_HOST_IP") or socket.gethostname()


def _without_port(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise RankError(f"{host}, where rank 0 should listen, is no known host: {error.strerror}") from error


def _tell_all(group: mx.distributed.Group, text: str | None) -> str:
    """Bring rank 0's text to every rank by one collective; the other ranks give None."""
    card = np.zeros(CARD_BYTES, np.uint8)
    if text is not None:
        card[: len(text)] = np.frombuffer(text.encode(), np.uint8)
    told = np.array(mx.distributed.all_sum(mx.array(card), group=group, stream=mx.cpu))
    return told.tobytes().rstrip(b"\0").decode()


def _wait_for(listener: socket.socket, key: bytes, size: int, card: dict[str, Any]) -> list[Peer]:
    """Accept both connections of every other rank.  Raises RankError naming the ranks that do not come in time."""
    deadline = monotonic() + MEETING_SECONDS
    known: dict[tuple[int, str], tuple[dict[str, Any], Connection]] = {}  # (rank, use) -> (its card, the connection)
    while len(known) < 2 * (size - 1):
        listener.settimeout(max(deadline - monotonic(), 0.01))
        try:
            caller, _ = listener.accept()
        except TimeoutError:
            missing = sorted(set(range(1, size)) - {rank for rank, _ in known})
            raise RankError(f"ranks {missing} did not connect to rank 0 within {MEETING_SECONDS:.0f} s") from None
        try:
            accepted = _connection(caller)
            deliver_challenge(accepted, key)
            answer_challenge(accepted, key)
            hello = json.loads(accepted.recv_bytes())
            accepted.send_bytes(json.dumps(card).encode())
        except (EOFError, OSError, AuthenticationError, ValueError):
            continue  # somebody else, or a rank that is gone: the deadline will tell
        known[hello["rank"], hello["use"]] = hello["card"], accepted
    for _, connection in known.values():
        _wait_at_most(connection.fileno(), 0)
    peers = []
    for rank in range(1, size):
        their_card, work = known[rank, "work"]
        peers.append(Peer(rank, their_card, work, known[rank, "pulse"][1]))
    return peers


def _join(host: str, port: int, key: bytes, rank: int, card: dict[str, Any]) -> Peer:
    """Connect to rank 0 twice, for work and for the pulse.  Raises RankError."""
    if port == 0:
        raise RankError("rank 0 found no address to listen on")
    made: dict[str, Connection] = {}
    leader: dict[str, Any] = {}
    for use in ("work", "pulse"):
        try:
            connection = _connection(socket.create_connection((host, port), MEETING_SECONDS))
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
            connection.send_bytes(json.dumps({"rank": rank, "use": use, "card": card}).encode())
            leader = json.loads(connection.recv_bytes())
        except (EOFError, OSError, AuthenticationError) as error:
            raise RankError(
                f"rank {rank} does not reach rank 0 at {host}:{port}: {error}; if rank 0 has another address that it "
                "does reach, name it in $MLX_DDTREE_HOST"
            ) from error
        _wait_at_most(connection.fileno(), 0)
        made[use] = connection
    return Peer(0, leader, made["work"], made["pulse"])


def _connection(connected: socket.socket) -> Connection:
    """Framed messages over a socket that sends at once: a round's orders must not wait for an acknowledgement."""
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _wait_at_most(connected.fileno(), HANDSHAKE_SECONDS)
    return Connection(connected.detach())


def _wait_at_most(descriptor: int, seconds: int) -> None:
    """Let reading fail after so long; 0: never."""
    with socket.socket(fileno=os.dup(descriptor)) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))

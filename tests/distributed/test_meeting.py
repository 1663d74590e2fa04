"""Ranks find each other; strangers do not get in, and do not hold them up."""

import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from mlx_ddtree.distributed import meeting
from mlx_ddtree.distributed.meeting import _join, _wait_for, control_host
from mlx_ddtree.errors import RankError

KEY = b"0123456789abcdef"
CARD = {"host": "here", "process": 1, "versions": {}}


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.setattr(meeting, "HANDSHAKE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as made, ThreadPoolExecutor() as pool:
        waiting = lambda: pool.submit(_wait_for, made, KEY, 2, CARD)  # noqa: E731
        yield SimpleNamespace(port=made.getsockname()[1], waiting=waiting)


def close(*peers):
    for peer in peers:
        peer.work.close()
        peer.pulse.close()


def test_both_connections_are_made(listener):
    waiting = listener.waiting()
    here = _join("127.0.0.1", listener.port, KEY, 1, CARD | {"host": "there"})
    (there,) = waiting.result(20)
    assert (here.rank, there.rank) == (0, 1)
    assert there.name == "rank 1 on there (process 1)"
    here.work.send_bytes(b"to work")
    there.pulse.send_bytes(b"to pulse")
    assert (there.work.recv_bytes(), here.pulse.recv_bytes()) == (b"to work", b"to pulse")
    close(here, there)


def test_strangers_do_not_get_in(listener):
    waiting = listener.waiting()
    silent = socket.create_connection(("127.0.0.1", listener.port))
    rude = socket.create_connection(("127.0.0.1", listener.port))
    rude.sendall(struct.pack("!i", 5) + b"hello" + b"\xff" * 100)
    with pytest.raises(RankError, match="rank 1 does not reach rank 0"):
        _join("127.0.0.1", listener.port, b"another key", 1, CARD)
    here = _join("127.0.0.1", listener.port, KEY, 1, CARD)
    close(here, *waiting.result(20))
    silent.close()
    rude.close()


def test_a_rank_that_does_not_come_is_named(listener, monkeypatch):
    monkeypatch.setattr(meeting, "MEETING_SECONDS", 0.1)
    with pytest.raises(RankError, match=r"ranks \[1\] did not connect to rank 0"):
        listener.waiting().result(20)


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"MLX_DDTREE_HOST": "10.0.0.1", "MLX_JACCL_COORDINATOR": "10.0.0.2:9"}, "10.0.0.1"),
        ({"MLX_JACCL_COORDINATOR": "10.0.0.2:9"}, "10.0.0.2"),
        ({"NCCL_HOST_IP": "10.0.0.3"}, "10.0.0.3"),
        ({}, socket.gethostname()),
    ],
)
def test_rank_0_listens_where_mlx_does(variables, host, monkeypatch):
    for name in ("MLX_DDTREE_HOST", "MLX_HOSTFILE", "MLX_JACCL_COORDINATOR", "NCCL_HOST_IP"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert control_host() == host


def test_the_rings_first_address(tmp_path, monkeypatch):
    monkeypatch.delenv("MLX_DDTREE_HOST", raising=False)
    (tmp_path / "hosts.json").write_text('[["[fe80::1]:4000", "10.0.0.1:4001"], ["10.0.0.2:4000"]]')
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts.json"))
    assert control_host() == "fe80::1"


def test_a_process_alone_joins_nobody(monkeypatch):
    for name in meeting.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    assert meeting.launched_group() is None
    assert "MLX_RANK" not in os.environ

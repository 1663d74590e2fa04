"""What one client can take of a server without having asked for anything is bounded, in size and in time."""

import json
import socket
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection

import pytest
import uvicorn

from mlx_ddtree import generate
from mlx_ddtree.server.connections import BoundedConnection
from mlx_ddtree.server.settings import RequestLimits

from .running import QUESTION, serving, wait_until

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Client:
    """A socket that speaks as it likes."""

    def __init__(self, site, data=b""):
        self.socket = socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2])), timeout=30)
        self.socket.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def read(self):
        """All that comes until the server closes: the last response's status and body."""
        data = b""
        with suppress(ConnectionResetError):  # what a client still sends is cut off once it has its answer
            while piece := self.socket.recv(65536):
                data += piece
        while data.startswith(b"HTTP/1.1 100 "):
            _, _, data = data.partition(b"\r\n\r\n")
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def refusal(self):
        """Status and code of a refusal in OpenAI's format."""
        status, body = self.read()
        return status, json.loads(body)["error"]["code"]


def request(body, length=None, *headers):
    lines = [f"Content-Length: {len(body) if length is None else length}", *headers]
    return HEAD.encode() + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def question(**options):
    return json.dumps({"messages": QUESTION, "max_tokens": 20, **options}).encode()


def check_well(site):
    assert site.http.get("/health").status_code == 200


def test_headers_have_their_time(engine):
    with serving(engine, limits=RequestLimits(header_seconds=0.3)) as site:
        clients = [Client(site, data) for data in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")]
        clients += [Client(site, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")]
        assert clients[0].refusal() == clients[1].refusal() == (408, "headers_timeout")
        assert clients[2].read()[0] == 200
        for client in clients:
            client.socket.close()
        check_well(site)


def test_a_drop_now_and_then_wins_no_time(engine):
    with serving(engine, limits=RequestLimits(header_seconds=0.4)) as site, Client(site) as client:
        start = time.monotonic()
        sender = threading.Thread(target=send_until_closed, args=(client.socket, b"G"))
        sender.start()
        assert client.refusal() == (408, "headers_timeout")
        assert time.monotonic() - start < 5
        sender.join(30)
        assert not sender.is_alive()


def test_a_body_has_its_time(engine):
    with serving(engine, limits=RequestLimits(body_seconds=0.3)) as site:
        with Client(site, request(b"{", 99)) as client:
            assert client.refusal() == (408, "body_timeout")
        with Client(site, HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n") as client:
            assert client.refusal() == (408, "body_timeout")
        check_well(site)


@pytest.mark.parametrize("length", [17 * 2**20, 99999999999])
def test_an_absurd_length_is_refused_before_its_body(site, length):
    with Client(site, request(b"{}", length)) as client:
        assert client.refusal() == (413, "body_too_large")


def test_a_refusal_reaches_a_client_that_still_sends(site):
    """... and what it sends is not kept."""
    with Client(site, request(b"x" * 2**20, 99999999999)) as client:
        sender = threading.Thread(target=send_until_closed, args=(client.socket, b"x" * 2**16))
        sender.start()
        assert client.refusal() == (413, "body_too_large")
        sender.join(30)
        assert not sender.is_alive()


def send_until_closed(connection, data):
    try:
        for _ in range(1000):
            connection.sendall(data)
            time.sleep(0.01)
    except OSError:
        pass


def test_unfinished_bodies_share_a_room(engine):
    limits = RequestLimits(body_bytes=200_000, unfinished_bytes=250_000, small_bytes=10_000)
    large = question(stop="x" * 150_000, max_tokens=1)
    with serving(engine, limits=limits) as site:

        def refused_beside_another():
            """Whoever of the two comes later is refused, so the other one gets time to arrive."""
            with Client(site, request(b" " * 180_000, 190_000)):
                time.sleep(0.3)
                return post(site, large) == 429 and post(site, question(max_tokens=1)) == 200  # small ones pass

        wait_until(refused_beside_another)
        wait_until(lambda: post(site, large) == 200)
        assert post(site, large) == 200  # and an answered one has left


def post(site, body):
    return site.http.post(
        "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
    ).status_code


def test_connections_are_counted(engine):
    with serving(engine, limits=RequestLimits(connections=3)) as site:
        clients = [Client(site) for _ in range(3)]
        time.sleep(0.2)
        with Client(site) as late:
            assert late.refusal() == (503, "too_many_connections")
        for client in clients:
            client.socket.close()
        wait_until(lambda: answers(site))


def answers(site):
    try:
        return site.http.get("/health").status_code == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00" * 40 + b"\r\n\r\n", b"GET /\r\n\r\n", b"G / HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_refused_in_openais_format(site, junk):
    with Client(site, junk) as client:
        assert client.refusal() == (400, "invalid_http")


def test_a_client_that_half_closes_gets_its_answer(site, pair):
    expected = generate(pair, QUESTION, 20)
    for stream in (False, True):
        with Client(site, request(question(stream=stream))) as client:
            client.socket.shutdown(socket.SHUT_WR)
            status, body = client.read()
        assert status == 200
        if stream:
            assert body.count("data: [DONE]") == 1
        else:
            assert json.loads(body)["choices"][0]["message"]["content"] == expected


def test_half_a_request_is_no_request(site):
    with Client(site, request(b"{", 99)) as client:
        client.socket.shutdown(socket.SHUT_WR)
        assert client.socket.recv(100) == b""


def test_a_connection_serves_several_requests(site):
    connection = HTTPConnection("127.0.0.1", int(site.url.rpartition(":")[2]), timeout=30)
    connection.connect()
    ours = connection.sock
    for _ in range(3):
        connection.request("POST", "/v1/chat/completions", b"{}", {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, connection.sock) == (400, ours)
        response.read()
        time.sleep(0.1)
    connection.close()


@contextmanager
def large_answers(size, limits):
    """A server whose every answer has `size` bytes."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(size // 2**20):
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    connection = partial(BoundedConnection, limits=limits)
    server = uvicorn.Server(uvicorn.Config(app, http=connection, lifespan="off", log_level="warning"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_does_not_read_is_let_go(reads):
    """Slow ones are not: as long as they take something they get all."""
    size = 32 * 2**20
    limits = RequestLimits(send_seconds=0.5)
    with large_answers(size, limits) as (server, port), socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = 0
        while reads and (piece := client.recv(2**21)):
            received += len(piece)
            time.sleep(0.05)
        wait_until(lambda: not server.server_state.connections, 20)
    assert received >= size or not reads

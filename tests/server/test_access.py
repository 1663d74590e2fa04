"""Requests to a server's own names pass, and others learn which option lets them in."""

import asyncio
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mlx_ddtree.server.access import access_middleware, host_name
from mlx_ddtree.server.settings import ServerSettings


def ask(header, **settings):
    """The response to a request with this Host header."""

    async def fine(request):
        return PlainTextResponse("fine")

    made = ServerSettings(**{"model": "demo"} | settings)
    app = Starlette(routes=[Route("/v1/models", fine)], middleware=access_middleware(made))

    async def get():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.get("/v1/models", headers={"Host": header.encode("latin-1")})

    return asyncio.run(get())


OWN = ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080"]
FOREIGN = [
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "evil.example:localhost", "[evil.example"),
    *(
        "[::2]",
        "[",
        "",
        ":8080",
        "localhost@evil.example",
        "localhost:80@evil.example",
        "0.0.0.0",
        "host.docker.internal:8080",
    ),
]


@pytest.mark.parametrize("listening", ["127.0.0.1", "localhost", "::1"])
@pytest.mark.parametrize("host", OWN)
def test_a_servers_own_names_pass(listening, host):
    assert ask(host, host=listening).text == "fine"


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_refused_in_openais_format(host):
    response = ask(host)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "invalid_host" and error["type"] == "invalid_request_error"
    assert "--allowed-hosts" in error["message"]


def test_the_refusal_names_the_option_that_helps():
    assert "--allowed-hosts host.docker.internal" in ask("host.docker.internal:8080").json()["error"]["message"]
    for named in (["host.docker.internal"], ["HOST.docker.internal", "another"], ["*"]):
        assert ask("host.docker.internal:8080", allowed_hosts=named).text == "fine"
    assert ask("evil.example", allowed_hosts=["host.docker.internal"]).status_code == 400


def test_names_are_checked_where_there_is_reason():
    """A key keeps web pages out by itself, and a server for other machines does not know its names."""
    assert ask("any.example", host="0.0.0.0").text == "fine"
    assert ask("any.example", api_key="secret").status_code == 401
    assert ask("any.example", host="0.0.0.0", allowed_hosts=["known.example"]).status_code == 400
    assert ask("known.example", host="0.0.0.0", allowed_hosts=["known.example"]).text == "fine"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("a.B:1", "a.b"),
        ("[::1]:1", "::1"),
        ("::1", "::1"),
        ("fe80::1", "fe80::1"),
        ("", ""),
        ("[::1", ""),
        ("a:1@b", ""),
    ],
)
def test_names_in_host_headers(header, name):
    assert host_name(header) == name


def test_refusals_are_ascii_whatever_the_name():
    assert json.loads(ask("\xff\xfe").content)["error"]["code"] == "invalid_host"

"""What goes to a client over HTTP/1.1: one head, in which no value begins another line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.protocol import Protocol

Headers = Sequence[tuple[bytes, bytes]]
PLAIN: Headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


class Wire(asyncio.Transport):
    """What was written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.data, self.closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def answered(
    headers: Headers,
    request: bytes = b"GET /%61?b=c HTTP/1.1\r\nhost: here\r\n\r\n",
    parts: Sequence[bytes] = (b"ok",),
    protocol: type[HttpToolsProtocol] = Protocol,
) -> Wire:
    """What a client gets whose request is answered with these parts under these headers."""
    asked: list[str] = []

    async def app(scope, receive, send):
        await receive()
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state, wire = ServerState(), Wire()
    state.default_headers = [(b"date", b"today")]
    connection = protocol(config, state, {})
    connection.connection_made(wire)
    connection.data_received(request)
    await asyncio.gather(*state.tasks)
    connection.connection_lost(None)
    assert asked == ["/a"]
    return wire


async def test_a_reply_is_its_status_its_headers_and_its_body():
    wire = await answered(PLAIN)
    assert wire.data == b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "header",
    [
        *[(b"x-a", value) for value in (b"1\r\nx-b: 2", b"1\n", b"\r", b"\0", b"\x01", b"\x1f", b"\x7f")],
        (b"x a", b"1"),
        (b"x-a:", b"1"),
    ],
)
async def test_what_cannot_stand_in_a_header_is_a_bug_and_never_sent(header):
    wire = await answered([*PLAIN, header])
    assert wire.data.startswith(b"HTTP/1.1 500 ")
    assert b"x-a" not in wire.data
    assert b"x-b" not in wire.data


async def test_a_tab_and_letters_beyond_ascii_may_stand_in_a_header():
    assert b"\r\nx-a: \t\xe4\r\n" in (await answered([*PLAIN, (b"x-a", b"\t\xe4")])).data


async def test_a_reply_without_a_length_comes_in_chunks():
    wire = await answered([], parts=[b"ok", b"", b"0123456789abcdef", b""])
    head, _, body = wire.data.partition(b"\r\n\r\n")
    assert head.endswith(b"\r\ntransfer-encoding: chunked")
    assert body == b"2\r\nok\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("asked", [b"", b"connection: close\r\n"])
@pytest.mark.parametrize(
    ("headers", "parts"),
    [
        (PLAIN, [b"ok"]),
        (PLAIN, [b"o", b"k"]),
        ([], [b"ok"]),
        ([], [b"a", b"", b"b"]),
        ([(b"transfer-encoding", b"chunked")], [b"a", b"b"]),
        ([(b"connection", b"close")], [b"a", b"b"]),
    ],
)
async def test_every_byte_is_the_one_that_uvicorn_sends(method, asked, headers, parts):
    request = method + b" /a HTTP/1.1\r\n" + asked + b"\r\n"
    ours = await answered(headers, request, parts)
    theirs = await answered(headers, request, parts, HttpToolsProtocol)
    assert (ours.data, ours.closed) == (theirs.data, theirs.closed)


@pytest.mark.parametrize(
    ("headers", "request_"),
    [
        ([*PLAIN, (b"connection", b"close")], b"GET /a HTTP/1.1\r\n\r\n"),
        (PLAIN, b"GET /a HTTP/1.1\r\nconnection: close\r\n\r\n"),
        (PLAIN, b"GET /a HTTP/1.0\r\n\r\n"),
    ],
)
async def test_a_connection_that_ends_with_its_reply_says_so(headers, request_):
    wire = await answered(headers, request_)
    assert wire.data.count(b"\r\nconnection: close\r\n") == 1
    assert wire.closed


async def test_a_head_request_gets_the_head_alone():
    wire = await answered(PLAIN, b"HEAD /a HTTP/1.1\r\n\r\n")
    assert wire.data.endswith(b"content-length: 2\r\n\r\n")

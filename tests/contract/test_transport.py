"""The promise of gateway.transport, over TCP and inside the process; and what only a real connection can do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import pytest
import trustme

from gateway.dialects.base import Call
from gateway.errors import UpstreamBroken, UpstreamLeft, UpstreamUnreachable
from gateway.simulated import SimulatedTransport
from gateway.simulated.server import Server
from gateway.transport import connection, http1
from gateway.transport.base import Transport
from gateway.transport.connection import READ_AHEAD_BYTES
from gateway.transport.foreign import Foreign
from gateway.transport.http1 import Pool
from gateway.types import Provider, Timeouts

PLAIN = ssl.create_default_context()
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"


def provider(port: int, *, connections: int = 8, connect_s: float = 5.0, scheme: str = "http") -> Provider:
    address = f"{scheme}://localhost:{port}/v1"
    return Provider("p", "openai", address, timeouts=Timeouts(connect_s=connect_s), max_connections=connections)


def call(whom: Provider, body: bytes = b"{}", **headers: str) -> Call:
    return Call(f"{whom.base_url}/chat/completions", body, {"content-type": "application/json", **headers})


async def whole(transport: Transport, made: Call) -> bytes:
    async with await transport.send(made) as answer:
        return b"".join([chunk async for chunk in answer.chunks()])


# The promise, on every implementation


@dataclass
class Way:
    transport: Transport
    called: Callable[[], int]
    abandoned: Callable[[], int]
    url: str

    def call(self, script: str = "", *, stream: bool = False) -> Call:
        message = {"role": "user", "content": "Say something."}
        body = {"model": f"sim{script}", "stream": stream, "messages": [message]}
        return Call(f"{self.url}/chat/completions", orjson.dumps(body), {"content-type": "application/json"})


@pytest.fixture(params=["tcp", "inside"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    if request.param == "inside":
        inside = SimulatedTransport()
        whom = provider(1)
        yield Way(Foreign(whom, inside), lambda: inside.called, lambda: inside.abandoned, whom.base_url)
        return
    server = Server()
    await server.start("localhost")
    whom = provider(server.port)
    pool = Pool(whom, PLAIN)
    yield Way(pool, lambda: server.stats.called, lambda: server.stats.abandoned, whom.base_url)
    await pool.close()
    await server.close()


async def test_a_whole_reply_comes_whole(way: Way) -> None:
    async with await way.transport.send(way.call("?first_token_ms=0")) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        body = b"".join([chunk async for chunk in answer.chunks()])
    assert orjson.loads(body)["object"] == "chat.completion"


async def test_a_stream_comes_to_its_end(way: Way) -> None:
    streamed = await whole(way.transport, way.call("?first_token_ms=0&output=40", stream=True))
    assert streamed.endswith(b"data: [DONE]\n\n")


async def test_an_error_reply_is_an_answer_with_its_body(way: Way) -> None:
    async with await way.transport.send(way.call("?status=429")) as answer:
        assert answer.status == 429
        assert orjson.loads(await answer.body(65536))["error"]


async def test_leaving_a_reply_before_its_end_is_seen_by_the_provider(way: Way) -> None:
    made = way.call("?first_token_ms=0&output=5000&tps=1000", stream=True)
    async with await way.transport.send(made) as answer:
        async for _ in answer.chunks():
            break
    await turns(way.abandoned)


async def test_who_calls_is_told_once_when_the_request_goes_out(way: Way) -> None:
    told: list[int] = []
    async with await way.transport.send(way.call("?first_token_ms=0"), lambda: told.append(way.called())) as answer:
        assert len(told) == 1
        await answer.body(65536)
    assert len(told) == 1


# A real connection, against a peer that says exactly what the test wants


@dataclass
class Peer:
    """Answers each request on a connection with the next of `replies`; None hangs up instead."""

    replies: list[bytes | None]
    port: int = 0
    accepted: int = 0
    hung_up: int = 0  # by the client, while it should have been listening
    asked: list[bytes] = field(default_factory=list)
    hold: asyncio.Event | None = None  # answers wait for it
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.asked.append(head + await reader.readexactly(length))
                if self.hold is not None:
                    await self.hold.wait()
                reply = self.replies.pop(0)
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up += 1
        finally:
            writer.close()


@asynccontextmanager
async def peer(*replies: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    found = Peer(list(replies))
    async with await asyncio.start_server(found.serve, "localhost", 0, ssl=tls) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


@asynccontextmanager
async def pool(whom: Provider, tls: ssl.SSLContext = PLAIN) -> AsyncIterator[Pool]:
    made = Pool(whom, tls)
    yield made
    await made.close()
    await asyncio.sleep(0)


@asynccontextmanager
async def hangs_up_after(reply: bytes) -> AsyncIterator[Provider]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(serve, "localhost", 0) as server:
        yield provider(server.sockets[0].getsockname()[1])


async def turns(until: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not until():  # noqa: ASYNC110  # the other side has no event to wait for
            await asyncio.sleep(0.001)


async def test_one_connection_serves_one_request_after_another() -> None:
    async with peer(OK, OK, OK) as other, pool(provider(other.port)) as ours:
        for _ in range(3):
            assert await whole(ours, call(provider(other.port))) == b"ok"
        assert other.accepted == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"more than was asked for",
    ],
    ids=["closed", "old", "too much"],
)
async def test_a_connection_that_cannot_be_trusted_again_is_not_used_again(reply: bytes) -> None:
    async with peer(reply, OK) as other, pool(provider(other.port)) as ours:
        assert await whole(ours, call(provider(other.port))) == b"ok"
        assert await whole(ours, call(provider(other.port))) == b"ok"
        assert other.accepted == 2


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n is\r\n0\r\nx-trailer: 1\r\n\r\n",
            b"ok is",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
    ids=["1xx", "chunked", "nothing"],
)
async def test_a_body_ends_where_http_says(reply: bytes, body: bytes) -> None:
    async with peer(reply, OK) as other, pool(provider(other.port)) as ours:
        assert await whole(ours, call(provider(other.port))) == body
        assert await whole(ours, call(provider(other.port))) == b"ok"
        assert other.accepted == 1


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with hangs_up_after(b"HTTP/1.1 200 OK\r\n\r\nall of it") as whom, pool(whom) as ours:
        assert await whole(ours, call(whom)) == b"all of it"


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        CHUNKED,
    ],
    ids=["length", "chunked"],
)
async def test_a_body_cut_short_is_broken_and_never_complete(reply: bytes) -> None:
    async with hangs_up_after(reply) as whom, pool(whom) as ours, await ours.send(call(whom)) as answer:
        with pytest.raises(UpstreamBroken):
            _ = [chunk async for chunk in answer.chunks()]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-filler: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
    ids=["hangs up", "not HTTP", "another protocol", "endless headers"],
)
async def test_what_is_no_reply_is_a_broken_one(reply: bytes | None) -> None:
    async with peer(reply) as other, pool(provider(other.port)) as ours:
        with pytest.raises(UpstreamBroken):
            await ours.send(call(provider(other.port)))


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    async with peer() as other:
        port = other.port
    async with pool(provider(port)) as ours:
        with pytest.raises(UpstreamUnreachable):
            await ours.send(call(provider(port)))


async def test_a_kept_connection_that_the_provider_closed_is_replaced() -> None:
    async with peer(OK, OK) as other, pool(provider(other.port)) as ours:
        assert await whole(ours, call(provider(other.port))) == b"ok"
        kept = ours._idle[http1.target(call(provider(other.port)).url)[0]][0]
        kept._transport.close()  # type: ignore[union-attr]
        await turns(lambda: kept.closed)
        assert await whole(ours, call(provider(other.port))) == b"ok"
        assert other.accepted == 2


async def test_a_request_that_meets_a_closing_connection_is_told_apart_and_the_other_idle_ones_are_given_up() -> None:
    async with peer(OK, OK, None, OK) as other, pool(provider(other.port)) as ours:
        whom = provider(other.port)
        other.hold = asyncio.Event()
        both = [asyncio.create_task(whole(ours, call(whom))) for _ in range(2)]
        await turns(lambda: len(other.asked) == 2)
        other.hold.set()
        await asyncio.gather(*both)
        with pytest.raises(UpstreamLeft):
            await ours.send(call(whom))
        assert not ours._idle
        assert await whole(ours, call(whom)) == b"ok"
        assert other.accepted == 3


@pytest.mark.parametrize(
    "replies",
    [(None,), (OK, b"HTTP/1.1 200")],
    ids=["that served nobody", "that had begun to answer"],
)
async def test_a_connection_has_not_just_been_left(replies: tuple[bytes | None, ...]) -> None:
    async with peer(*replies) as other, pool(provider(other.port)) as ours:
        whom = provider(other.port)
        for _ in replies[1:]:
            await whole(ours, call(whom))
        sending = asyncio.create_task(ours.send(call(whom)))
        await turns(lambda: not other.replies)
        for writer in other.writers:
            writer.close()
        with pytest.raises(UpstreamBroken) as broken:
            await sending
        assert not isinstance(broken.value, UpstreamLeft)


async def test_a_provider_that_closes_after_a_while_had_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALE_S", 0.0)
    async with peer(OK, None) as other, pool(provider(other.port)) as ours:
        assert await whole(ours, call(provider(other.port))) == b"ok"
        with pytest.raises(UpstreamBroken) as broken:
            await ours.send(call(provider(other.port)))
        assert not isinstance(broken.value, UpstreamLeft)


async def test_nothing_is_said_to_have_been_sent_where_nobody_listens() -> None:
    async with peer() as other:
        port = other.port
    told: list[None] = []
    async with pool(provider(port)) as ours:
        with pytest.raises(UpstreamUnreachable):
            await ours.send(call(provider(port)), lambda: told.append(None))
    assert not told


async def test_no_more_connections_than_allowed_and_who_waits_too_long_is_told_it_was_not_sent() -> None:
    async with peer(OK, OK) as other:
        other.hold = asyncio.Event()
        whom = provider(other.port, connections=1, connect_s=0.05)
        async with pool(whom) as ours:
            first = asyncio.create_task(whole(ours, call(whom)))
            await turns(lambda: other.asked)
            with pytest.raises(UpstreamUnreachable):
                await ours.send(call(whom))
            assert (other.accepted, len(other.asked)) == (1, 1)
            other.hold.set()
            assert await first == b"ok"


async def test_who_waits_for_a_place_gets_the_connection_that_becomes_free() -> None:
    async with peer(*[OK] * 20) as other:
        whom = provider(other.port, connections=2)
        async with pool(whom) as ours:
            assert await asyncio.gather(*(whole(ours, call(whom)) for _ in range(20))) == [b"ok"] * 20
        assert other.accepted == 2


async def test_waiting_and_leaving_gives_no_place_away() -> None:
    async with peer(OK, OK) as other:
        other.hold = asyncio.Event()
        whom = provider(other.port, connections=1)
        async with pool(whom) as ours:
            first = asyncio.create_task(whole(ours, call(whom)))
            await turns(lambda: other.asked)
            impatient, patient = (asyncio.create_task(whole(ours, call(whom))) for _ in range(2))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            impatient.cancel()
            other.hold.set()
            assert [await first, await patient] == [b"ok", b"ok"]


async def test_cancelling_a_call_hangs_up() -> None:
    async with peer(OK) as other:
        other.hold = asyncio.Event()
        async with pool(provider(other.port)) as ours:
            sent = asyncio.create_task(ours.send(call(provider(other.port))))
            await turns(lambda: other.asked)
            sent.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sent
            other.replies[:] = [OK * 2_000_000]
            other.hold.set()
            await turns(lambda: other.hung_up)
            await turns(lambda: ours._open == 0)


async def test_a_large_reply_waits_in_the_provider_and_not_in_memory_while_its_reader_is_slow() -> None:
    size = 64 * READ_AHEAD_BYTES
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
    async with hangs_up_after(reply) as whom, pool(whom) as ours, await ours.send(call(whom)) as answer:
        await turns(lambda: answer._connection._paused)  # type: ignore[attr-defined]
        largest = total = 0
        async for chunk in answer.chunks():
            largest, total = max(largest, len(chunk)), total + len(chunk)
        assert total == size
        assert largest < 4 * READ_AHEAD_BYTES


async def test_a_body_of_megabytes_arrives_whole() -> None:
    body = b"x" * 3_000_000
    async with peer(OK) as other, pool(provider(other.port)) as ours:
        assert await whole(ours, call(provider(other.port), body)) == b"ok"
        assert other.asked[0].endswith(body)


async def test_a_header_with_a_line_break_is_refused_and_nothing_is_sent() -> None:
    async with peer() as other, pool(provider(other.port)) as ours:
        with pytest.raises(UpstreamUnreachable):
            await ours.send(call(provider(other.port), authorization="Bearer x\r\nhost: evil"))
        assert other.accepted == 0


@pytest.mark.parametrize("address", ["ftp://x/v1", "http:///v1", "nothing"])
async def test_an_address_that_is_none_is_unreachable(address: str) -> None:
    whom = Provider("p", "openai", address)
    async with pool(whom) as ours:
        with pytest.raises(UpstreamUnreachable):
            await ours.send(call(whom))


async def _tls(trusted: bool, then: Callable[[Pool, Provider], Awaitable[None]]) -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(theirs)
    mine = ssl.create_default_context()
    if trusted:
        authority.configure_trust(mine)
    async with peer(OK, OK, tls=theirs) as other:
        whom = provider(other.port, scheme="https")
        async with pool(whom, mine) as ours:
            await then(ours, whom)
            await turns(lambda: True)


async def test_a_provider_with_a_certificate_we_trust_is_called_over_tls() -> None:
    async def then(ours: Pool, whom: Provider) -> None:
        assert await whole(ours, call(whom)) == b"ok"
        assert await whole(ours, call(whom)) == b"ok"
        assert ours._open == 1

    await _tls(True, then)


async def test_a_certificate_nobody_vouches_for_is_never_talked_to() -> None:
    async def then(ours: Pool, whom: Provider) -> None:
        with pytest.raises(UpstreamUnreachable):
            await ours.send(call(whom))
        assert ours._open == 0

    await _tls(False, then)

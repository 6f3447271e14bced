"""A provider over TCP that fails in every way that is known: the first part of a call's path names the way.

    base_url: http://127.0.0.1:PORT/half_closed/v1

Answers are OpenAI's; `calls` counts those that came for each fault, `left` when (loop time) a caller hung up on one.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import cache
from types import TracebackType
from typing import Self

import orjson

PIECE_S = 0.05
"""Between two bytes of a provider that dribbles: each is in time, all of them never are."""
STATED = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
WORDS = ("one", " two", " three", " four")
ANSWERED = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "faulty-1",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"},
    ],
}
ERROR = {"error": {"message": "It is broken.", "type": "server_error", "code": None, "param": None}}
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


class HungUp(Exception):
    """The caller left."""


def whole(**fields: object) -> bytes:
    """A whole reply."""
    return orjson.dumps({**ANSWERED, "usage": STATED, **fields})


def event(data: object) -> bytes:
    """One event of a stream."""
    return b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def chunk(delta: dict[str, object], **fields: object) -> bytes:
    """One chunk of a streamed reply."""
    choice = {"index": 0, "delta": delta, "finish_reason": fields.pop("finish_reason", None)}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "faulty-1"}
    return event({**head, "choices": [choice], **fields})


BEGIN = chunk({"role": "assistant", "content": ""})
MIDDLE = tuple(chunk({"content": word}) for word in WORDS)
END = chunk({}, finish_reason="stop")
USAGE = event(
    {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "faulty-1", "choices": [], "usage": STATED}
)
DONE = event(b"[DONE]")
STREAM = (BEGIN, *MIDDLE, END, USAGE, DONE)


class Call:
    """One call that came, and how to answer it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: int, *, stream: bool
    ) -> None:
        self.reader, self.writer, self.stream = reader, writer, stream
        self.before = before  # calls that this connection has served
        self.key = ""  # what it came with, in lower case
        self.kept = False  # whether the connection may serve another call

    def write(self, data: bytes) -> None:
        if self.writer.transport.is_closing():
            raise HungUp
        self.writer.write(data)

    def head(self, status: int = 200, *, length: int | None = None, **headers: str) -> None:
        kind = "text/event-stream" if self.stream and status == 200 else "application/json"
        lines = {"content-type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}
        lines |= {"transfer-encoding": "chunked"} if length is None else {"content-length": str(length)}
        text = "\r\n".join([f"HTTP/1.1 {status} Words", *(f"{name}: {value}" for name, value in lines.items()), "", ""])
        self.write(text.encode())

    def piece(self, data: bytes) -> None:
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.write(b"0\r\n\r\n")
        self.kept = True

    def all(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.head(status, length=len(body), **headers)
        self.write(body)
        self.kept = True

    def sent(self, *events: bytes) -> None:
        """A stream of these events, from head to end."""
        self.head()
        for each in events:
            self.piece(each)
        self.end()

    def begun(self) -> None:
        """The first half of an answer."""
        if self.stream:
            self.head()
            for each in (BEGIN, *MIDDLE[:2]):
                self.piece(each)
        else:
            body = whole()
            self.head(length=len(body))
            self.write(body[: len(body) // 2])

    def reset(self) -> None:
        self.writer.transport.abort()

    async def flushed(self) -> None:
        await asyncio.sleep(PIECE_S)

    async def silence(self) -> None:
        """Until the caller has had enough."""
        while await self.reader.read(65536):
            pass
        raise HungUp

    async def dribbled(self, data: bytes) -> None:
        """Byte by byte, in chunks."""
        for at in range(len(data)):
            self.piece(data[at : at + 1])
            await asyncio.sleep(PIECE_S)


Fault = Callable[[Call], Awaitable[None]]


async def fine(call: Call) -> None:
    if call.stream:
        call.sent(*STREAM)
    else:
        call.all(whole())


async def slow(call: Call) -> None:
    """Well, after a while."""
    await asyncio.sleep(0.1)
    await fine(call)


async def reset_before_headers(call: Call) -> None:
    call.reset()


async def reset_during_headers(call: Call) -> None:
    call.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await call.flushed()
    call.reset()


async def reset_after_headers(call: Call) -> None:
    call.head()
    await call.flushed()
    call.reset()


async def reset_midway(call: Call) -> None:
    call.begun()
    await call.flushed()
    call.reset()


async def half_closed(call: Call) -> None:
    """Says that it will send no more, and keeps listening."""
    call.begun()
    call.writer.write_eof()
    await call.silence()


async def slow_loris(call: Call) -> None:
    """A head that never ends."""
    call.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000):
        call.write(b"x-%d: y\r\n" % number)
        await asyncio.sleep(PIECE_S)


async def byte_by_byte(call: Call) -> None:
    call.head()
    await call.dribbled(b"".join(STREAM) if call.stream else whole())


async def no_head(call: Call) -> None:
    await call.silence()


async def stall(call: Call) -> None:
    call.begun()
    await call.silence()


async def wrong_content_type(call: Call) -> None:
    call.all(b"<html><body>Welcome to nginx!</body></html>", content_type="text/html")


async def truncated_json(call: Call) -> None:
    if call.stream:
        call.sent(BEGIN, MIDDLE[0], MIDDLE[1][:-20] + b"\n\n")
    else:
        call.all(whole()[:-40])


async def invalid_utf8(call: Call) -> None:
    if call.stream:
        call.sent(BEGIN, MIDDLE[0].replace(b"one", b"\xff\xfe"), END, DONE)
    else:
        call.all(whole().replace(b"two", b"\xff\xfe"))


async def invalid_gzip(call: Call) -> None:
    call.all(b"\x1f\x8b\x08\x00 this is no gzip", content_encoding="gzip")


async def zip_bomb(call: Call) -> None:
    call.all(bomb(), content_encoding="gzip")


@cache
def bomb() -> bytes:
    """64 MiB of nothing; to make it takes a while, in which nobody else is served."""
    return gzip.compress(bytes(64 * 1024 * 1024), 1)


async def line_of_10_mb(call: Call) -> None:
    """Legal, and large."""
    text = "x" * 10_000_000
    if call.stream:
        call.sent(BEGIN, chunk({"content": text}), END, USAGE, DONE)
    else:
        message = {"role": "assistant", "content": text}
        call.all(whole(choices=[{"index": 0, "message": message, "finish_reason": "stop"}]))


async def endless_line(call: Call) -> None:
    """Past every bound, and never a line's end."""
    call.head()
    call.piece(b"data: " if call.stream else b'{"x": "')
    for _ in range(1000):
        call.piece(b"x" * 1_000_000)
        await call.writer.drain()


async def redirect_loop(call: Call) -> None:
    call.all(b"", 307, location="/redirect_loop/v1/chat/completions")


async def early_error(call: Call) -> None:
    """A 200 that is an error."""
    if call.stream:
        call.sent(event(ERROR))
    else:
        call.all(orjson.dumps(ERROR))


async def late_error(call: Call) -> None:
    if call.stream:
        call.sent(BEGIN, *MIDDLE[:2], event(ERROR))
    else:
        call.all(orjson.dumps(ERROR))


async def done_twice(call: Call) -> None:
    if call.stream:
        call.sent(*STREAM, DONE)
    else:
        call.all(whole() + b"\n")


async def no_done(call: Call) -> None:
    if call.stream:
        call.sent(*STREAM[:-1])
    else:
        call.all(whole())


async def no_end(call: Call) -> None:
    """A body that ends properly in the middle of the answer."""
    if call.stream:
        call.sent(BEGIN, *MIDDLE[:2])
    else:
        call.all(whole()[:-1])


async def no_usage(call: Call) -> None:
    if call.stream:
        call.sent(BEGIN, *MIDDLE, END, DONE)
    else:
        call.all(orjson.dumps(ANSWERED))


def refusing(status: int, body: bytes | None = None, **headers: str) -> Fault:
    """Answers with this status."""

    async def fault(call: Call) -> None:
        call.all(orjson.dumps(ERROR) if body is None else body, status, **headers)

    return fault


async def limited_date(call: Call) -> None:
    call.all(orjson.dumps(ERROR), 429, retry_after=formatdate(time.time() + 40, usegmt=True))


async def limited_epoch(call: Call) -> None:
    call.all(orjson.dumps(ERROR), 429, retry_after=str(int(time.time()) + 40))


def _limited(**fields: object) -> bytes:
    return orjson.dumps({"error": {"message": "Slow down.", "type": "rate_limit_error", "code": 429, **fields}})


async def error_with_usage(call: Call) -> None:
    """It worked, and its answer is an error; the usage stands beside it."""
    choice = {"index": 0, "delta": {}, "finish_reason": "error", **ERROR}
    if call.stream:
        call.sent(event({"choices": [choice], "usage": STATED}))
    else:
        call.all(orjson.dumps({"choices": [choice], "usage": STATED}))


FAULTS: dict[str, Fault] = {
    each.__name__: each
    for each in (
        fine,
        slow,
        reset_before_headers,
        reset_during_headers,
        reset_after_headers,
        reset_midway,
        half_closed,
        slow_loris,
        byte_by_byte,
        no_head,
        stall,
        wrong_content_type,
        truncated_json,
        invalid_utf8,
        invalid_gzip,
        zip_bomb,
        line_of_10_mb,
        endless_line,
        redirect_loop,
        early_error,
        late_error,
        error_with_usage,
        done_twice,
        no_done,
        no_end,
        no_usage,
        limited_date,
        limited_epoch,
    )
} | {
    "status_500": refusing(500),
    "status_503_html": refusing(503, b"<html><h1>503 Service Unavailable</h1></html>", content_type="text/html"),
    "status_529": refusing(529),
    "status_408": refusing(408),
    "status_409": refusing(409),
    "limited": refusing(429),
    "limited_ms": refusing(429, retry_after_ms="20"),
    "limited_seconds": refusing(429, retry_after="40"),
    "limited_minutes": refusing(429, retry_after="6m0s"),
    "limited_fraction": refusing(429, retry_after="17.399s"),
    "limited_retry_info": refusing(429, _limited(details=[{"@type": RETRY_INFO, "retryDelay": "40s"}])),
    "limited_words": refusing(429, _limited(message="Rate limit reached. Please try again in 6m0s.")),
    "limited_reset": refusing(429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="6m0s"),
}


class FaultyProvider:
    """Listens on a port of its own.  What it does under a name can be changed while it runs: `faults[name] = fault`."""

    def __init__(self) -> None:
        self.faults = dict(FAULTS)
        self.calls: Counter[str] = Counter()
        self.left: dict[str, float] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        name = ""
        try:
            kept, before = True, 0
            while kept:
                name, call = await self._call(reader, writer, before)
                await self.faults[name](call)
                kept, before = call.kept, before + 1
        except (HungUp, OSError):
            self.left[name] = asyncio.get_running_loop().time()
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: int) -> tuple[str, Call]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length: ", 1)[1].split("\r\n", 1)[0])
        body = orjson.loads(await reader.readexactly(length))
        name = head.split(" ", 2)[1].split("/")[1]
        self.calls[name] += 1
        call = Call(reader, writer, before, stream=bool(body.get("stream")))
        call.key = head.partition("authorization: bearer ")[2].partition("\r\n")[0]
        return name, call

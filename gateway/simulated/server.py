"""The simulated provider over TCP, for benchmarks and for tests that need a real connection: HTTP/1.1, kept alive.

`GET /stats` tells how many calls came, were answered to the end, or were abandoned because the caller hung up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from gateway.simulated.batches import BATCH_S, Batches
from gateway.simulated.reply import JSON, Fault, InputTokens, Reply, respond
from gateway.simulated.script import Place
from gateway.simulated.transport import FOREVER_S, PATIENCE, Player
from gateway.tokens import simulated_input_tokens

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


class Gone(Exception):
    """The connection is over."""


@dataclass(slots=True)
class Stats:
    """Calls since the start."""

    called: int = 0
    completed: int = 0
    abandoned: int = 0


class Server:
    """Accepts connections until `close`; `port` is the one it got."""

    def __init__(self, input_tokens: InputTokens = simulated_input_tokens, batch_s: float = BATCH_S) -> None:
        self.stats = Stats()
        self.batches = Batches(time.time, input_tokens, batch_s)
        self.port = 0
        self._input_tokens = input_tokens
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; port 0 takes a free one."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD_BYTES_MAX, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def wait(self) -> None:
        """Serves until cancelled."""
        assert self._server is not None  # noqa: S101 - started by the caller, who owns both calls
        await self._server.serve_forever()

    async def close(self) -> None:
        """Stops listening and hangs up on everyone."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        self._connections.add(task)
        try:
            while True:
                await self._one(reader, writer)
        except (Gone, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # nobody is left to be told
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = dict(_header(line) for line in head[1:] if ": " in line)
        length = int(headers.get("content-length", "0"))
        if length > BODY_BYTES_MAX or "transfer-encoding" in headers:
            raise Gone
        body = await reader.readexactly(length)
        kind = headers.get("content-type", "")
        if (said := self.batches.answer(method, path.partition("?")[0], kind, body)) is not None:
            writer.write(_head(said[0], {**JSON, "content-length": str(len(said[1]))}) + said[1])
            return
        if method != "POST":
            stats = orjson.dumps(self.stats)
            writer.write(_head(200, {**JSON, "content-length": str(len(stats))}) + stats)
            return
        self.stats.called += 1
        try:
            await self._play(respond(path, body, int(time.time()), self._input_tokens), reader, writer)
        except (Gone, ConnectionError):
            self.stats.abandoned += 1
            raise
        self.stats.completed += 1

    async def _play(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        player = Player(time.monotonic, asyncio.sleep)
        await player.until(reply.starts_s)
        if reply.instead is not Place.NOWHERE:
            await _break_off(reply.fault, reader)
        chunked = "content-length" not in reply.headers
        headers = {**reply.headers, "transfer-encoding": "chunked"} if chunked else reply.headers
        writer.write(_head(reply.status, headers))
        for sent, (at_s, piece) in enumerate(reply.pieces, 1):
            await player.until(at_s)
            if isinstance(piece, Fault):
                await writer.drain()
                await _break_off(piece, reader)
            else:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
            if sent % PATIENCE == 0:
                await player.pause()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _break_off(fault: Fault, reader: asyncio.StreamReader) -> None:
    """Hangs up, at once or when the caller does."""
    if fault is Fault.STALL:
        async with asyncio.timeout(FOREVER_S):
            await reader.read(1)
    raise Gone


def _header(line: str) -> tuple[str, str]:
    name, value = line.split(": ", 1)
    return name.lower(), value


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Simulated')}\r\n{lines}\r\n".encode("latin-1")

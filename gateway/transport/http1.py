"""HTTP/1.1 to one provider over kept-alive connections.  See docs/decisions for why it is our own.

The newest idle connection is used first, so that those not needed grow old and are closed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs

from gateway.dialects.base import Call
from gateway.errors import UpstreamUnreachable
from gateway.transport.base import Answer
from gateway.transport.connection import Connection
from gateway.types import Provider

IDLE_S = 30.0
"""Less than the shortest time after which the usual load balancers hang up."""
NAMES_S = 10.0
"""How long a resolved name is remembered."""
NEXT_ADDRESS_S = 0.25
"""How long one address may take to connect before the next is tried beside it (RFC 8305)."""

Addresses = Sequence[aiohappyeyeballs.AddrInfoType]


class Origin(NamedTuple):
    """Where connections lead."""

    host: str
    port: int
    tls: bool


@lru_cache(maxsize=1024)
def target(url: str) -> tuple[Origin, str]:
    """The origin of a URL, and its request line's rest with the host header.  Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http or https URL")
    tls = parts.scheme == "https"
    origin = Origin(parts.hostname, parts.port or (443 if tls else 80), tls)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    host = parts.netloc.rpartition("@")[2]
    return origin, f" {path} HTTP/1.1\r\nhost: {host}\r\naccept-encoding: identity\r\n"


def head(call: Call, line: str) -> bytes:
    """The request up to its body.  Raises ValueError for what cannot stand in a header."""
    lines = [f"{name}: {value}\r\n" for name, value in call.headers.items()]
    text = f"{call.method}{line}{''.join(lines)}content-length: {len(call.body)}\r\n\r\n"
    breaks = len(lines) + 5
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise ValueError("a header holds a line break")
    return text.encode("latin-1")


class PooledAnswer(Answer):
    """See Answer."""

    def __init__(self, pool: Pool, origin: Origin, connection: Connection) -> None:
        self.status = connection.status
        self._pool, self._origin, self._connection = pool, origin, connection
        self._closed = False

    @property
    def headers(self) -> Mapping[str, str]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._connection.headers}

    def header(self, name: str) -> str:
        wanted = name.encode("latin-1")
        for known, value in reversed(self._connection.headers):
            if known == wanted:
                return value.decode("latin-1")
        return ""

    async def chunks(self) -> AsyncIterator[bytes]:
        more = self._connection.more
        while chunk := await more():
            yield chunk

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.give_back(self._origin, self._connection)


class Pool:
    """See Transport.  At most `provider.max_connections` at a time; who comes later waits."""

    def __init__(self, provider: Provider, tls: ssl.SSLContext) -> None:
        self._provider, self._tls = provider, tls
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Origin, deque[Connection]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._open = 0  # connections, and those being made
        self._names: dict[Origin, tuple[float, Addresses]] = {}

    async def send(self, call: Call) -> Answer:
        try:
            origin, line = target(call.url)
            start = head(call, line)
        except (ValueError, UnicodeError) as error:
            raise UpstreamUnreachable(f"Provider {self._provider.id} cannot be called: {error}.") from error
        connection = self._kept(origin) or await self._connected(origin)
        try:
            connection.ask(start, call.body)
            await connection.head()
        except BaseException:
            connection.abort()
            raise
        return PooledAnswer(self, origin, connection)

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """The exchange on it is over."""
        if not connection.reusable:
            connection.abort()
            return
        now = connection.idle_since = self._loop.time()
        idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        while now - idle[0].idle_since > IDLE_S:
            idle.popleft().abort()
        self._wake()

    def _kept(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if not connection.closed and self._loop.time() - connection.idle_since <= IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connected(self, origin: Origin) -> Connection:
        """A new connection, or one that became free while there was no place for another."""
        try:
            async with asyncio.timeout(self._provider.timeouts.connect_s):
                while self._open >= self._provider.max_connections:
                    await self._place()
                    if (kept := self._kept(origin)) is not None:
                        return kept
                self._open += 1
                try:
                    return await self._connect(origin)
                except BaseException:
                    self._gone()
                    raise
        except (OSError, TimeoutError, UnicodeError) as error:
            self._names.pop(origin, None)
            raise UpstreamUnreachable(f"Provider {self._provider.id} cannot be reached.") from error

    async def _connect(self, origin: Origin) -> Connection:
        addresses = await self._resolved(origin)
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            _, connection = await self._loop.create_connection(
                Connection,
                sock=connected,
                ssl=self._tls if origin.tls else None,
                server_hostname=origin.host if origin.tls else None,
            )
        except BaseException:
            connected.close()
            raise
        if connection.closed:
            raise ConnectionResetError
        connection.lost = self._lost
        return connection

    async def _resolved(self, origin: Origin) -> Addresses:
        known = self._names.get(origin)
        if known is not None and self._loop.time() - known[0] < NAMES_S:
            return known[1]
        found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        self._names[origin] = self._loop.time(), found
        return found

    async def _place(self) -> None:
        """Returns when a connection is given back or gone; makes room by ending the oldest idle one elsewhere."""
        for idle in self._idle.values():
            if idle:
                idle.popleft().abort()
                break
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # the place that was meant for us
            raise

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _lost(self, connection: Connection) -> None:
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)
        self._gone()

    def _gone(self) -> None:
        self._open -= 1
        self._wake()

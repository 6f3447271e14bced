"""HTTP/1.1 to one provider over kept-alive connections.  See docs/decisions for why it is our own.

The newest idle connection is used first, so that those not needed grow old and are closed.  None older than
`provider.connection_age_max_s` is used again, and new ones go to where the name then leads.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

import aiohappyeyeballs

from gateway.dialects.base import Call
from gateway.errors import UpstreamBroken, UpstreamLeft, UpstreamUnreachable
from gateway.transport.base import Answer, Sent, unheard
from gateway.transport.connection import Connection
from gateway.transport.proxy import Proxy, proxy_of, tunnel
from gateway.types import Provider

IDLE_S = 30.0
"""Less than the shortest time after which the usual load balancers hang up."""
NAMES_S = 10.0
"""How long a resolved name is remembered."""
NEXT_ADDRESS_S = 0.25
"""How long one address may take to connect before the next is tried beside it (RFC 8305)."""

Addresses = Sequence[aiohappyeyeballs.AddrInfoType]
Resolve: TypeAlias = Callable[[str, int], Awaitable[Addresses]]
"""Where a host and port are.  Raises OSError."""


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


async def _resolved_by_the_system(host: str, port: int) -> Addresses:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class PooledAnswer(Answer):
    """See Answer."""

    def __init__(self, pool: Pool, origin: Origin, connection: Connection) -> None:
        self.status = connection.status
        self._pool, self._origin, self._connection = pool, origin, connection
        self._closed = False

    @property
    def headers(self) -> Mapping[str, str]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._connection.headers.items()}

    def header(self, name: str) -> str:
        value = self._connection.headers.get(name.encode("latin-1"))
        return "" if value is None else value.decode("latin-1")

    def chunks(self) -> AsyncIterator[bytes]:
        return self._connection

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.give_back(self._origin, self._connection)


class Pool:
    """See Transport.  At most `provider.max_connections` at a time; who comes later waits."""

    def __init__(self, provider: Provider, tls: ssl.SSLContext, resolve: Resolve | None = None) -> None:
        self._provider, self._tls, self._resolve = provider, tls, resolve or _resolved_by_the_system
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Origin, deque[Connection]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._open = 0  # connections, and those being made
        self._names: dict[tuple[str, int], tuple[float, Addresses]] = {}

    async def send(self, call: Call, sent: Sent = unheard) -> Answer:
        try:
            origin, line = target(call.url)
            start = head(call, line)
            proxy = proxy_of(self._provider.proxy, origin.host, tls=origin.tls) if self._provider.proxy else None
        except (ValueError, UnicodeError) as error:
            raise UpstreamUnreachable(f"Provider {self._provider.id} cannot be called: {error}.") from error
        connection = self._kept(origin) or await self._connected(origin, proxy)
        sent()
        try:
            connection.ask(start, call.body)
            await connection.head()
        except UpstreamBroken as broken:
            connection.abort()
            if not connection.left:
                raise
            self._forget(origin)
            raise UpstreamLeft(broken.message) from broken
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
        now = self._loop.time()
        if not connection.reusable or now - connection.made_at > self._provider.connection_age_max_s:
            connection.abort()
            return
        connection.idle_since = now
        idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        while now - idle[0].idle_since > IDLE_S:
            idle.popleft().abort()
        self._wake()

    def _forget(self, origin: Origin) -> None:
        """Ends the idle connections: where one was closed the others were, or will be."""
        for connection in self._idle.pop(origin, ()):
            connection.abort()

    def _kept(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection, now = idle.pop(), self._loop.time()
            young = now - connection.made_at <= self._provider.connection_age_max_s
            if young and not connection.closed and now - connection.idle_since <= IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connected(self, origin: Origin, proxy: Proxy | None) -> Connection:
        """A new connection, or one that became free while there was no place for another."""
        try:
            async with asyncio.timeout(self._provider.timeouts.connect_s):
                while self._open >= self._provider.max_connections:
                    await self._place()
                    if (kept := self._kept(origin)) is not None:
                        return kept
                self._open += 1
                try:
                    return await self._connect(origin, proxy)
                except BaseException:
                    self._gone()
                    raise
        except (OSError, TimeoutError, UnicodeError) as error:
            self._names.pop((proxy or origin)[:2], None)
            raise UpstreamUnreachable(f"Provider {self._provider.id} cannot be reached.") from error

    async def _connect(self, origin: Origin, proxy: Proxy | None) -> Connection:
        addresses = await self._resolved(*(proxy or origin)[:2])
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if proxy is not None:
                await tunnel(connected, proxy, origin.host, origin.port)
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

    async def _resolved(self, host: str, port: int) -> Addresses:
        known = self._names.get((host, port))
        if known is not None and self._loop.time() - known[0] < NAMES_S:
            return known[1]
        found = await self._resolve(host, port)
        self._names[host, port] = self._loop.time(), found
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

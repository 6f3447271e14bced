"""Clients: so many connections, each sending the same request again as soon as it is answered, or at a given rate.

    python -m bench.load '{"url": ..., "body": ..., "headers": {...}, "connections": 16, "seconds": 3, "rate": null}'

Prints one JSON object.  Latency is from when a request was due, so a server that stalls cannot hide it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

import httptools
import uvloop

QUIET_S = 15.0
"""A server that sends nothing for so long is given up."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send.  `rate`: requests a second in all; None: as fast as answers come."""

    url: str
    body: str
    headers: dict[str, str]
    connections: int = 16
    seconds: float = 3.0
    rate: float | None = None
    requests: int | None = None  # stop after so many
    hold: bool = False  # open a stream on each connection and keep it, until the parent hangs up


@dataclass(slots=True)
class Seen:
    """What came.  Times in milliseconds."""

    requests: int = 0
    failed: int = 0
    first_failure: str = ""
    seconds: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    first_p50: float = 0.0  # until the first byte of the body
    first_p99: float = 0.0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)

    def close(self, seconds: float) -> dict[str, float | int | str]:
        """The percentiles, without what they are made of."""
        self.seconds = seconds
        for names, values in ((("p50", "p90", "p99"), self.latencies), (("first_p50", "", "first_p99"), self.firsts)):
            if len(values) > 1:
                cuts = statistics.quantiles(values, n=100, method="inclusive")
                for name, at in zip(names, (49, 89, 98), strict=True):
                    if name:
                        setattr(self, name, round(cuts[at] * 1000, 3))
        found = asdict(self)
        del found["latencies"], found["firsts"]
        return found


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        self._request, self._seen = request, seen
        self._loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[None] | None = None
        self._body = b""
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("the server hung up"))

    def on_body(self, body: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter()
        if len(self._body) < 300:
            self._body += body

    def on_message_complete(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    async def ask(self, due: float) -> None:
        """One request and its whole answer."""
        self._parser, self._body, self._first = httptools.HttpResponseParser(self), b"", 0.0
        self._answered = self._loop.create_future()
        self._transport.write(self._request)
        try:
            async with asyncio.timeout(QUIET_S):
                await self._answered
        finally:
            self._answered = None
        status = self._parser.get_status_code()
        if status != 200:
            self._seen.failed += 1
            self._seen.first_failure = self._seen.first_failure or f"{status} {self._body[:300]!r}"
            return
        now = time.perf_counter()
        self._seen.requests += 1
        self._seen.latencies.append(now - due)
        self._seen.firsts.append((self._first or now) - due)


def _request(load: Load) -> tuple[str, int, bytes]:
    parts = urlsplit(load.url)
    body = load.body.encode()
    headers = {"host": parts.netloc, "content-type": "application/json", **load.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {parts.path} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return parts.hostname or "127.0.0.1", parts.port or 80, head.encode() + body


async def run(load: Load) -> Seen:
    """Sends until the time is over; a connection that breaks counts as one failure and is not replaced."""
    host, port, request = _request(load)
    loop, seen = asyncio.get_running_loop(), Seen()
    clients = [
        (await loop.create_connection(lambda: Client(request, seen), host, port))[1] for _ in range(load.connections)
    ]
    began = time.perf_counter()
    until = began + load.seconds
    apart = load.connections / load.rate if load.rate else 0.0

    async def use(client: Client, number: int) -> None:
        due = began + apart * number / load.connections
        while due < until and (load.requests is None or seen.requests + seen.failed < load.requests):
            if apart and (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            try:
                await client.ask(due if apart else time.perf_counter())
            except (OSError, TimeoutError) as error:
                seen.failed += 1
                seen.first_failure = seen.first_failure or repr(error)
                return
            due = due + apart if apart else time.perf_counter()

    if load.hold:
        for client in clients:
            task = loop.create_task(client.ask(time.perf_counter()))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(load.seconds)
    else:
        await asyncio.gather(*(use(client, number) for number, client in enumerate(clients)))
    seen.seconds = time.perf_counter() - began
    return seen


if __name__ == "__main__":
    found = uvloop.run(run(Load(**json.loads(sys.argv[1]))))
    print(json.dumps(found.close(found.seconds)))

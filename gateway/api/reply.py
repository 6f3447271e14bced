"""ASGI at the edge: the request's body in, the reply out, and word of a client that left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from msgspec import Struct

from gateway.errors import BodyTooLarge, InvalidRequest, RequestTimeout
from gateway.room import Held
from gateway.transport.deadline import Deadline

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
ASGISend = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

WATCH_AFTER_S = 0.05
"""Requests shorter than this are not watched: noticing that their client left would save nothing."""


class ClientGone(Exception):
    """The client left before its whole request was here."""


class Reply:
    """Implements `gateway.pipeline.Send` over ASGI."""

    def __init__(self, send: ASGISend) -> None:
        self._send = send
        self.started = False
        self.ended = False

    async def start(self, status: int, headers: Headers) -> None:
        """The status line and headers."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def chunk(self, data: bytes) -> Awaitable[None]:
        """Some of the body; waits while the client is slow."""
        return self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        """The last of the body."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})

    async def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """A reply that is all here."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.end(body)


class Intake(Struct, frozen=True):
    """How a body is taken in: at most `limit` bytes, within `seconds`, as far as there is room for it."""

    limit: int
    seconds: float
    held: Held


async def read_body(receive: Receive, headers: Iterable[tuple[bytes, bytes]], into: Intake) -> bytes:
    """The whole body.  Raises BodyTooLarge before reading more, Overloaded, RequestTimeout, ClientGone."""
    limit = into.limit
    for name, value in headers:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            raise _too_large(limit) if value.isdigit() else InvalidRequest("content-length is not a number.")
        if name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise InvalidRequest("content-encoding is not supported here; send the body as it is.")
    try:
        with Deadline(asyncio.get_running_loop().time() + into.seconds):
            return await _read(receive, into)
    except TimeoutError:
        raise RequestTimeout(f"The request did not arrive within {into.seconds:g} seconds.") from None


async def _read(receive: Receive, into: Intake) -> bytes:
    parts: list[bytes] = []
    size = 0
    while (message := await receive())["type"] == "http.request":
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > into.limit:
            raise _too_large(into.limit)
        into.held.add(len(part))
        if not message.get("more_body"):
            return b"".join([*parts, part]) if parts else part
        parts.append(part)
    raise ClientGone


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body may have at most {limit} bytes.")


class Watch:
    """Cancels the current task when its client leaves.  `gone` tells that cancellation from any other."""

    def __init__(self, receive: Receive, reply: Reply) -> None:
        self.gone = False
        self._receive, self._reply = receive, reply
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self._loop)
        self._watcher: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(WATCH_AFTER_S, self._begin)

    def stop(self) -> None:
        """The request is over."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watcher = self._loop.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._reply.ended and self._task is not None:
            self.gone = True
            self._task.cancel()


def last(send: ASGISend) -> ASGISend:
    """The same, telling the client that its connection ends with this reply."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return closing

"""One HTTP/1.1 connection to a provider, one exchange at a time.  Parsing is llhttp's, as in Node.js."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.errors import GatewayError, UpstreamBroken
from gateway.transport.base import STALE_S

READ_AHEAD_BYTES = 256 * 1024
"""What may wait for a slow client before the provider is made to wait too."""
HEAD_BYTES_MAX = 64 * 1024
ONE_WRITE_BYTES = 64 * 1024
"""A body up to this size goes out with its head in one system call."""


class Connection(asyncio.Protocol):
    """Owned by one exchange at a time, which calls `ask` and `head`, and then goes through the body as it comes."""

    def __init__(self) -> None:
        self.lost: Callable[[Connection], None] | None = None  # told once, when the connection is over
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # names in lower case; the last of a repeated one
        self.closed = False
        self.idle_since = 0.0  # 0: it has served nobody yet
        self._loop = asyncio.get_running_loop()
        self.made_at = self._loop.time()
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None  # of the exchange under way
        self._waiter: asyncio.Future[None] | None = None
        self._head_bytes = 0
        self._asked_at = 0.0
        self._heard = False  # of the reply
        self._has_head = self._complete = self._reusable = self._paused = False
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0
        self._failure: GatewayError | None = None

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over on both sides and the connection may serve another."""
        written = self._transport is not None and self._transport.get_write_buffer_size() == 0
        return self._complete and self._reusable and not self.closed and not self._chunks and written

    @property
    def left(self) -> bool:
        """Whether it ended as one does that was closed for having been idle just as the request came."""
        young = self._loop.time() - self._asked_at < STALE_S
        return self.idle_since > 0 and self.closed and not self._heard and young

    def ask(self, head: bytes, body: bytes) -> None:
        """Sends a request; whatever was before is forgotten."""
        self.status, self.headers, self._head_bytes = 0, {}, 0
        self._heard = self._has_head = self._complete = self._reusable = False
        self._asked_at = self._loop.time()
        self._parser = HttpResponseParser(self)
        if self._transport is None:
            self._fail()
        elif len(body) <= ONE_WRITE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def head(self) -> None:
        """Returns when the status and headers are here.  Raises UpstreamBroken."""
        while not self._has_head:
            if self._failure is not None:
                raise self._failure
            self._waiter = self._loop.create_future()
            await self._waiter

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """What has come of the body since.  Raises UpstreamBroken."""
        while not self._chunks:
            if self._complete:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            self._waiter = self._loop.create_future()
            await self._waiter
        chunks, self._chunks, self._waiting_bytes = self._chunks, [], 0
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def abort(self) -> None:
        """Ends the connection now."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        if self._parser is None:  # nobody asked: what it means for the next exchange cannot be known
            self.abort()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(error)
            self.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed, self._transport = True, None
        if self._parser is not None:
            if self._has_head and exc is None and self._ends_with_connection():
                self._complete, self._parser = True, None
            else:
                self._fail(exc)
            self._wake()
        if self.lost is not None:
            self.lost(self)

    # llhttp's side

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES_MAX or self._complete:
            raise ValueError("too many headers, or those of a second reply")
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101  # it is the caller
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > READ_AHEAD_BYTES and not self._paused and not self.closed:
            self._paused = True
            cast("asyncio.Transport", self._transport).pause_reading()

    def on_message_complete(self) -> None:
        if not self._has_head:  # 1xx: the reply itself is still to come
            self.headers = {}
        elif self._parser is not None:
            self._complete = True
            self._reusable = bool(self._parser.should_keep_alive())
            self._parser = None

    def _ends_with_connection(self) -> bool:
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def _fail(self, cause: BaseException | None = None) -> None:
        if self._failure is None and not self._complete:
            self._failure = UpstreamBroken(
                "The provider's reply broke off."
                if self._has_head
                else "The provider closed the connection before answering."
            )
            self._failure.__cause__ = cause
        self._parser = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

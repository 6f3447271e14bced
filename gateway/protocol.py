"""HTTP/1.1 to clients: uvicorn's, with the head of a reply written in one piece instead of header by header.

A reply of ours has some sixteen headers: looked at one by one they took a sixth of what uvicorn costs.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

FRAMING = frozenset({b"connection", b"transfer-encoding"})
"""Headers that change how a reply is sent: uvicorn reads them."""


class Cycle(RequestResponseCycle):
    """One request and its reply."""

    async def send(self, message: ASGISendEvent) -> None:
        """See uvicorn.  RuntimeError: a header cannot be one."""
        if self.response_started or message["type"] != "http.response.start" or self.disconnected:
            return await super().send(message)
        headers = [*self.default_headers, *message["headers"]]
        named = dict(headers)
        length = named.get(b"content-length")
        if length is None or not self.keep_alive or self.flow.write_paused or not FRAMING.isdisjoint(named):
            return await super().send(message)
        head = b"".join([_name(name) + value + b"\r\n" for name, value in headers])
        breaks = len(headers)
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
            raise RuntimeError("Invalid HTTP header value.")
        self.response_started = True
        self.waiting_for_100_continue = self.chunked_encoding = False
        self.expected_content_length = int(length)
        self.transport.write(STATUS_LINE[message["status"]] + head + b"\r\n")
        return None


@lru_cache(maxsize=1024)
def _name(name: bytes) -> bytes:
    """A header up to its value."""
    if HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    return name + b": "


@lru_cache(maxsize=256)
def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """The path as it is meant, as it was sent, and the query.  Raises HttpParserInvalidURLError."""
    parts = httptools.parse_url(url)
    path = parts.path.decode("ascii")
    return unquote(path) if "%" in path else path, parts.path, parts.query or b""


class Protocol(HttpToolsProtocol):
    """One connection of a client's."""

    def on_headers_complete(self) -> None:
        """See uvicorn; there are no WebSockets here, no root path and no bound on connections."""
        parser, scope, before = self.parser, self.scope, self.cycle
        version = parser.get_http_version()
        scope["method"], scope["http_version"] = parser.get_method().decode("ascii"), version
        scope["path"], scope["raw_path"], scope["query_string"] = _target(self.url)
        self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # a pipelined request waits for its turn
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

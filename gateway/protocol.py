"""HTTP/1.1 to clients: uvicorn's byte for byte, the head of a reply in one piece instead of header by header.

A reply of ours has some sixteen headers: looked at one by one they took a sixth of what uvicorn costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
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

CONTROLS = bytes({*range(32), 127} - {9})
"""What no value may hold, as uvicorn has it: a line break in one would begin another header, or another reply."""
FRAMING = frozenset({b"connection", b"transfer-encoding"})
"""Headers that change how a reply is sent: uvicorn reads them."""
EMPTY = frozenset({204, 304})
"""Replies without a body."""


class Cycle(RequestResponseCycle):
    """One request and its reply."""

    async def send(self, message: ASGISendEvent) -> None:
        """See uvicorn.  RuntimeError: a header cannot be one."""
        unusual = self.flow.write_paused or self.disconnected or self.response_complete or not self.keep_alive
        if unusual or self.scope["method"] == "HEAD":
            return await super().send(message)
        if message["type"] == "http.response.start":
            if not self.response_started and self._begun(message["status"], message.get("headers", ())):
                return None
        elif message["type"] == "http.response.body" and self.chunked_encoding and message.get("more_body"):
            if body := message.get("body", b""):
                self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            return None
        return await super().send(message)

    def _begun(self, status: int, added: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the head is written; if not it is one that uvicorn has to look at."""
        headers = [*self.default_headers, *added]
        named = dict(headers)
        length = named.get(b"content-length")
        if not FRAMING.isdisjoint(named) or (length is None and status in EMPTY):
            return False
        if length is None:
            headers.append((b"transfer-encoding", b"chunked"))
        head = b"".join([_name(name) + value + b"\r\n" for name, value in headers])
        if len(head) - len(head.translate(None, CONTROLS)) != 2 * len(headers):
            raise RuntimeError("Invalid HTTP header value.")
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding, self.expected_content_length = length is None, int(length or 0)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n")
        return True


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

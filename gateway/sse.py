"""Server-sent events: bytes -> events, event -> bytes.  Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end in LF, CRLF or CR, a blank line ends an event,
lines that start with a colon are comments.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.errors import UpstreamBroken

EVENT_BYTES_MAX = 32 * 1024 * 1024
"""An event may carry a whole image in base64; more than this is no event."""

BOM = b"\xef\xbb\xbf"
_CR = ord("\r")  # as a number: a search for bytes raises and catches an error first

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class Event(NamedTuple):
    """What one event says.  `data` is None when it has no data line: a comment, or nothing."""

    name: str
    data: bytes | None


class Splitter:
    """Cuts a stream into raw events, each with the blank line that ends it; joined they are the stream, byte for byte.

    However the stream is split into chunks, the events are the same.  An event above `event_bytes_max` raises
    UpstreamBroken.
    """

    __slots__ = ("_event_bytes_max", "_pending", "_scanned")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._pending = bytearray()
        self._scanned = 0  # no event ends before here

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are complete now."""
        if self._pending or _CR in chunk:
            return self._feed_slowly(chunk)
        size = len(chunk)
        if size > self._event_bytes_max:
            return self._feed_slowly(chunk)
        if size > 1 and chunk.find(b"\n\n") == size - 2:
            return [chunk]
        *events, rest = chunk.split(b"\n\n")
        self._pending += rest
        self._scanned = max(0, len(rest) - 3)
        return [event + b"\n\n" for event in events]

    def rest(self) -> bytes:
        """What came after the last complete event; the stream has ended."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _feed_slowly(self, chunk: bytes) -> list[bytes]:
        pending = self._pending
        pending += chunk
        events = []
        start, search = 0, self._scanned
        while (blank := _BLANK_LINE.search(pending, search)) is not None:
            end = blank.end()
            if end == len(pending) and pending[-1:] == b"\r":
                break  # its LF may be in the next chunk
            self._check(end - start)
            events.append(bytes(pending[start:end]))
            start = search = end
        del pending[:start]
        self._scanned = max(0, len(pending) - 3)
        self._check(len(pending))
        return events

    def _check(self, size: int) -> None:
        if size > self._event_bytes_max:
            raise UpstreamBroken(f"The provider sent an event of more than {self._event_bytes_max} bytes.")


def parse(raw: bytes) -> Event:
    """Reads one raw event, with or without the blank line that ends it."""
    name = ""
    data: list[bytes] = []
    for line in raw.removeprefix(BOM).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode(errors="replace")
    return Event(name, b"\n".join(data) if data else None)


def event(data: bytes, name: str = "") -> bytes:
    """The bytes of one event."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + b"\ndata: ".join(data.splitlines() or [b""]) + b"\n\n"

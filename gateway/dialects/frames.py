"""How a provider's bytes fall into events, before anyone reads them.  Server-sent events; others bring their own."""

from __future__ import annotations

from typing import Protocol

from gateway.sse import Splitter, parse


class Frames(Protocol):
    """Cuts a body into the data of its events, however it is split into chunks."""

    whole: bytearray | None  # all that came, where the body is one reply and no stream

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are complete now."""
        ...

    def rest(self) -> list[bytes]:
        """The body has ended: the event that lacks its end, if any."""
        ...


class SseFrames:
    """See Frames."""

    def __init__(self) -> None:
        self.whole: bytearray | None = None
        self._begun = False
        self._splitter = Splitter()

    def feed(self, chunk: bytes) -> list[bytes]:
        """A body that begins with a brace is a whole reply: some providers do not stream, though they were asked to."""
        if not self._begun and (start := chunk.lstrip()[:1]):
            self._begun = True
            if start == b"{":
                self.whole = bytearray()
        if self.whole is not None:
            self.whole += chunk
            return []
        return _data(self._splitter.feed(chunk))

    def rest(self) -> list[bytes]:
        return _data([self._splitter.rest()])


def _data(events: list[bytes]) -> list[bytes]:
    return [data for raw in events if (data := parse(raw).data or _bare_error(raw))]


def _bare_error(raw: bytes) -> bytes:
    """What llama.cpp says instead of an event."""
    start, found, data = raw.partition(b"error:")
    return data if found and not start.strip() else b""

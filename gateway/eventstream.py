"""Amazon's event stream: bytes -> messages.  Pure; the framing is botocore's, with both of its checksums.

https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from gateway.errors import UpstreamBroken

PRELUDE_BYTES = 12  # total length, length of the headers, checksum of these two
MESSAGE_BYTES_MIN = 16  # a prelude and the checksum of a message that holds nothing

_TOTAL = struct.Struct("!I")
_NAMES = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}


class Message(NamedTuple):
    """One message.  `kind` is event, exception or error; `name` says which."""

    kind: str
    name: str
    payload: bytes


class Splitter:
    """Cuts a stream into messages, the same ones however it is split into chunks.

    A message with a wrong checksum or impossible lengths raises UpstreamBroken, once those before it have been
    returned.
    """

    __slots__ = ("_buffer", "_fault", "_pending", "_wanted")

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()
        self._pending = bytearray()
        self._wanted = PRELUDE_BYTES  # how much of `_pending` it takes to read on
        self._fault: UpstreamBroken | None = None

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that are complete now."""
        if self._fault is not None:
            raise self._fault
        self._pending += chunk
        messages: list[Message] = []
        try:
            while len(self._pending) >= self._wanted:
                if self._wanted == PRELUDE_BYTES:
                    self._begin()
                else:
                    messages.append(self._message())
        except (ParserError, struct.error, ValueError, LookupError, StopIteration) as error:
            self._fault = UpstreamBroken(f"The provider sent an event stream that is damaged: {error}.")
            if not messages:
                raise self._fault from error
        return messages

    def rest(self) -> None:
        """The stream has ended.  Raises UpstreamBroken if it did so within a message, or after a damaged one."""
        if self._fault is not None:
            raise self._fault
        if self._pending:
            raise UpstreamBroken("The provider's event stream broke off within a message.")

    def _begin(self) -> None:
        """Checks the prelude before its length is believed."""
        prelude = bytes(self._pending[:PRELUDE_BYTES])
        self._buffer.add_data(prelude)
        next(self._buffer, None)
        (total,) = _TOTAL.unpack_from(prelude)
        if total < MESSAGE_BYTES_MIN:
            raise ValueError(f"a message of {total} bytes")
        self._wanted = total

    def _message(self) -> Message:
        self._buffer.add_data(bytes(self._pending[PRELUDE_BYTES : self._wanted]))
        read = next(self._buffer)
        del self._pending[: self._wanted]
        self._wanted = PRELUDE_BYTES
        return _told(read)


def _told(read: EventStreamMessage) -> Message:
    kind = str(read.headers.get(":message-type", "event"))
    name = str(read.headers.get(_NAMES.get(kind, ":event-type"), ""))
    payload = bytes(read.payload)
    if kind == "error" and not payload:
        payload = str(read.headers.get(":error-message", "")).encode()
    return Message(kind, name, payload)

"""Bedrock's event streams as the JSON that is in them."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable

import orjson

from gateway.errors import UpstreamBroken
from gateway.eventstream import Message, Splitter

FAULTS = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "modelTimeoutException": 504,
    "modelNotReadyException": 503,
    "serviceUnavailableException": 503,
    "throttlingException": 429,
    "validationException": 400,
}
"""The status that each exception in a stream would have had before it; for a timeout see `bedrock.TIMEOUT`."""


class BedrockFrames:
    """See Frames.  `data` is what the reader gets of one message."""

    def __init__(self, data: Callable[[Message], bytes]) -> None:
        self.whole: bytearray | None = None
        self._data = data
        self._begun = False
        self._fault: UpstreamBroken | None = None
        self._splitter = Splitter()

    def feed(self, chunk: bytes) -> list[bytes]:
        """A body that begins with a brace is a whole reply."""
        if not self._begun and chunk:
            self._begun = True
            if chunk[:1] == b"{":
                self.whole = bytearray()
        if self.whole is not None:
            self.whole += chunk
            return []
        return self._read(self._splitter.feed(chunk))

    def rest(self) -> list[bytes]:
        self._splitter.rest()
        return self._read([])

    def _read(self, messages: list[Message]) -> list[bytes]:
        """What the messages hold; one that cannot be read is raised once those before it have been returned."""
        if self._fault is not None:
            raise self._fault
        out: list[bytes] = []
        for message in messages:
            try:
                out.append(self._data(message))
            except UpstreamBroken as fault:
                self._fault = fault
                if not out:
                    raise
                break
        return out


def event(message: Message) -> bytes:
    """A message of Converse as Amazon's own SDKs have it: `{"messageStop": {...}}`; a fault as `{"error": {...}}`."""
    if message.kind != "event":
        return fault(message)
    return b"{%b:%b}" % (orjson.dumps(message.name), message.payload or b"{}")


def chunk(message: Message) -> bytes:
    """What a chunk of Invoke holds: an event in the model's own format, or a fault as Anthropic's events have it."""
    if message.kind != "event":
        return b'{"type":"error",' + fault(message)[1:]
    try:
        return b64decode(orjson.loads(message.payload)["bytes"], validate=True)
    except (ValueError, TypeError, LookupError, binascii.Error) as error:
        raise UpstreamBroken("The provider sent a chunk that cannot be read.") from error


def fault(message: Message) -> bytes:
    """An exception within a stream, with the status it stands for."""
    try:
        said = orjson.loads(message.payload)
        text = said.get("message") or said.get("originalMessage") or ""
    except (orjson.JSONDecodeError, AttributeError):
        text = message.payload.decode(errors="replace")
    status = FAULTS.get(message.name[:1].lower() + message.name[1:], 502)
    return orjson.dumps({"error": {"code": status, "type": message.name, "message": text or message.name}})

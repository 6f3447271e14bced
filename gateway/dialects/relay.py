"""Same format in and out: the client's bytes go to the provider and the provider's to the client.

A request is decoded to its top-level fields and no deeper; those we must change are changed, all other bytes survive.
A whole reply is passed on as it came.  A stream is passed on event by event; each is read for what it says of usage and
of its end, and written again only where the usage in it changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from msgspec import Raw

from gateway import sse
from gateway.dialects import refusal
from gateway.dialects.base import Meter
from gateway.errors import GatewayError, UpstreamBroken, UpstreamRejected
from gateway.plan import Step
from gateway.types import Provider, Request

FLEX = "flex"

BODY_BYTES_MAX = 64 * 1024 * 1024
"""A whole reply may carry images and audio in base64; more than this is none."""

TEXTS_FOLDED = 1024

Fields = dict[str, Raw | object]

_FIELDS: msgspec.json.Decoder[Fields] = msgspec.json.Decoder(dict[str, Raw])
WHOLE_BYTES_READ = 1024 * 1024
"""Of a whole body where a stream was asked for: enough for any error."""

_WHOLE_STARTS = (b"{", b"[", b"<")
_BLANK = sse.BOM + b" \t\r\n"


def fields(raw: bytes) -> Fields:
    """The top-level fields of a JSON object, undecoded.  Raises ValueError."""
    return _FIELDS.decode(raw)


def edited(raw: bytes, changes: Mapping[str, object], removals: tuple[str, ...] = ()) -> bytes:
    """The same JSON object with some top-level fields set or removed; every other value keeps its bytes."""
    changed = fields(raw)
    changed.update(changes)
    for name in removals:
        changed.pop(name, None)
    return msgspec.json.encode(changed)


def url(provider: Provider, path: str) -> str:
    """Where a call goes: `options: {path: ..., query: {api-version: ...}}` change what the format says."""
    address = provider.base_url.rstrip("/") + str(provider.options.get("path", path))
    query = provider.options.get("query")
    return f"{address}?{urlencode(query)}" if query else address


def headers(provider: Provider, request: Request, auth: str) -> dict[str, str]:
    """What every call carries.  `options: {auth: ...}` is `bearer`, `none` or the name of the header for the key."""
    accept = "text/event-stream" if request.stream else "application/json"
    return {"content-type": "application/json", "accept": accept, **proof(provider, auth)}


def proof(provider: Provider, auth: str) -> dict[str, str]:
    """The header that holds the provider's key."""
    auth = str(provider.options.get("auth", auth))
    if not provider.api_key or auth == "none":
        return {}
    return {"authorization": f"Bearer {provider.api_key}"} if auth == "bearer" else {auth: provider.api_key}


def nested(value: object) -> Fields:
    """The fields of an object within an object, undecoded; none of what is no object."""
    try:
        return _FIELDS.decode(value) if isinstance(value, Raw) else {}
    except ValueError:
        return {}


def set_tier(body: Fields, step: Step) -> None:
    """The flex tier where the plan asks for it; any other tier is the client's own word and stands in its body."""
    if step.service_tier == FLEX:
        body["service_tier"] = FLEX


def data(raw: bytes) -> bytes:
    """The data of an event; empty where it has none."""
    return sse.parse(raw).data or b""


def with_usage_cost(raw: bytes, dollars: str) -> bytes:
    """The event with `usage.cost`, a JSON number; everything else in it as it came."""
    old = data(raw)
    body = fields(old)
    body["usage"] = {**nested(body.get("usage")), "cost": Raw(dollars.encode())}
    return with_data(raw, old, msgspec.json.encode(body))


def with_data(raw: bytes, old: bytes, new: bytes) -> bytes:
    """The event with other data; its name, id and comments stay."""
    return raw.replace(old, new, 1) if old in raw else sse.event(new, sse.parse(raw).name)


def check_json(data: bytes) -> None:
    """Raises UpstreamBroken for an event whose data is no JSON."""
    try:
        msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamBroken("The provider sent an event that is not JSON.") from error


def reported(data: bytes, provider: Provider, now: float) -> GatewayError:
    """The error that an event or a body is, in whichever shape."""
    try:
        body = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        body = data.decode(errors="replace")
    return refusal.reported(body, provider, now)


def error_code(error: GatewayError) -> str:
    """The code a client sees: a provider's own where it rejected the request."""
    return (error.upstream_code if isinstance(error, UpstreamRejected) else None) or error.code


class Texts:
    """The text generated so far.  Cheap to add to, a token at a time."""

    __slots__ = ("_folded", "_new")

    def __init__(self) -> None:
        self._folded: list[str] = []
        self._new: list[str] = []

    def add(self, text: object) -> None:
        """Adds text; what is none is left out."""
        if type(text) is str:
            self._new.append(text)
            if len(self._new) >= TEXTS_FOLDED:
                self._folded.append("".join(self._new))
                self._new.clear()

    def __str__(self) -> str:
        return "".join(self._folded) + "".join(self._new)


class WholeRelay(ABC):
    """A Decoder of a reply that is not streamed: the body goes on byte for byte once it is all here and makes sense."""

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self.meter = Meter()
        self._texts = Texts()
        self._body_bytes_max = body_bytes_max
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        """Nothing yet.  Raises UpstreamBroken for a body that is too large."""
        self._size += len(chunk)
        if self._size > self._body_bytes_max:
            raise UpstreamBroken(f"The provider sent more than {self._body_bytes_max} bytes.")
        self.meter.chunks.append(chunk)
        return b""

    def finish(self) -> bytes:
        """The body.  Raises the error it holds, UpstreamBroken for what cannot be read."""
        body = b"".join(self.meter.chunks)
        try:
            self._learn(body)
        except (ValueError, RecursionError) as error:
            raise UpstreamBroken("The provider's reply is not the JSON it should be.") from error
        self.meter.complete = True
        return body

    def generated(self) -> str:
        """The text of the reply; of one that broke off, all that came of its body."""
        return str(self._texts) or b"".join(self.meter.chunks).decode(errors="replace")

    @abstractmethod
    def _learn(self, body: bytes) -> None:
        """Meters the body.  Raises the error it holds, ValueError for what is not a reply."""

    def cut(self, error: GatewayError) -> bytes:  # noqa: ARG002 - the protocol's
        """Nothing: the body goes out in one piece, so it never breaks off in the middle."""
        return b""


class StreamRelay(ABC):
    """A Decoder of a stream.  Comments before the first event wait for it, so that a stream that fails before its first
    event has sent nothing.  An error is raised once everything before it has been returned.
    """

    def __init__(self, event_bytes_max: int = sse.EVENT_BYTES_MAX) -> None:
        self.meter = Meter()
        self._texts = Texts()
        self._splitter = sse.Splitter(event_bytes_max)
        self._failure: GatewayError | None = None
        self._waiting = b""  # comments
        self._begun = False  # whether anything has been returned
        self._sniffed = False
        self._whole = bytearray()  # a body that is no stream at all

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now, as the client gets them."""
        if self._failure is not None:
            raise self._failure
        if not self._sniffed and self._is_whole(chunk):
            return b""
        return self._relayed(self._splitter.feed(chunk))

    def finish(self) -> bytes:
        """The last event, and what the provider left out of the end.  Raises UpstreamBroken if the answer is cut."""
        if self._whole:
            raise self._refusal(bytes(self._whole))
        out = self._relayed(self._padded(self._splitter.rest())) if self._failure is None else b""
        if self._failure is not None:
            raise self._failure
        if not self.meter.complete:
            end = self._end()
            if end is None:
                raise UpstreamBroken("The provider's stream broke off.")
            self.meter.complete = True
            return out + end
        return out

    def generated(self) -> str:
        """The text generated so far: visible, reasoning, tool calls."""
        return str(self._texts)

    @abstractmethod
    def cut(self, error: GatewayError) -> bytes:
        """An error event in the format of the stream."""

    @abstractmethod
    def _event(self, raw: bytes) -> bytes:
        """One event as the client gets it.  Raises the error it reports."""

    @abstractmethod
    def _end(self) -> bytes | None:
        """What a stream lacks that ended without its last event; None if the answer itself is not complete."""

    @abstractmethod
    def _learn_whole(self, body: bytes) -> None:
        """Meters a whole reply where a stream should be.  Raises the error it is, ValueError for what is none."""

    def _refusal(self, body: bytes) -> GatewayError:
        try:
            self._learn_whole(body)
        except GatewayError as error:
            return error
        except (ValueError, RecursionError):
            return UpstreamBroken("The provider sent what is no reply where a stream was asked for.")
        return UpstreamBroken("The provider sent a whole reply where a stream was asked for.")

    def _relayed(self, events: list[bytes]) -> bytes:
        out: list[bytes] = []
        try:
            for raw in events:
                if self._begun or not _is_comment(raw):
                    relayed = self._event(raw)
                    if relayed:
                        self._begun = True
                        out.append(relayed)
                else:
                    self._waiting += raw
        except GatewayError as error:
            self._failure = error
            if not out:
                raise
        if self._waiting and out:
            out.insert(0, self._waiting)
            self._waiting = b""
        return b"".join(out)

    def _is_whole(self, chunk: bytes) -> bool:
        """Whether the body is JSON or HTML instead of events."""
        start = chunk.lstrip(_BLANK)[:1]
        if self._whole or start in _WHOLE_STARTS:
            if len(self._whole) < WHOLE_BYTES_READ:
                self._whole += chunk
            return True
        self._sniffed = bool(start)
        return False

    def _padded(self, rest: bytes) -> list[bytes]:
        """The last event of a stream that forgot the blank line after it."""
        return [rest.rstrip(b"\r\n") + b"\n\n"] if rest.strip(_BLANK) else []


def _is_comment(raw: bytes) -> bool:
    return all(not line or line[:1] == b":" for line in raw.splitlines())

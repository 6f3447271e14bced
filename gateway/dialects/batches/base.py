"""What a provider's batch API promises us, whatever its shape.  Pure: a talk yields calls and is sent the replies.

A line has an id of ours, so that a client may call its lines as it likes.  Providers bill a line that was answered and
no other; what became of each is told once the batch has ended.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from gateway.dialects import relay
from gateway.dialects.base import Call
from gateway.errors import UpstreamBroken
from gateway.types import Provider

T = TypeVar("T")
Talk: TypeAlias = Generator[Call, bytes, T]
"""Yields a call, is sent the body of its 2xx reply, and so on; returns what it was for."""


class Item(NamedTuple):
    """One line as the provider reads it; `path` is where it would go by itself, /v1/chat/completions say."""

    id: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Lot:
    """A batch at a provider.  `name` is ours, `id` the provider's, "" until it has one."""

    provider: Provider
    name: str
    model: str  # of its first line
    path: str
    lines: int
    created: float  # unix seconds
    id: str = ""
    taken: frozenset[str] = frozenset()  # what other batches are there already


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is.  `over`: completed, failed, expired or cancelled; "": it goes on."""

    over: str = ""
    reason: str = ""  # why it failed, in the provider's words
    completed: int = 0
    failed: int = 0
    sources: tuple[Call, ...] = field(default=(), repr=False)  # whose replies hold the results
    whole: bool = False  # such a reply is one piece, not line by line
    tidying: tuple[Call, ...] = field(default=(), repr=False)  # what to forget once they are read


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a line: a reply of `status` with `body`, or a `code`: batch_expired, batch_cancelled."""

    id: str
    status: int = 0
    body: bytes = field(default=b"", repr=False)
    code: str = ""


class BatchWire(Protocol):
    """One provider's way.  Replies that cannot be read raise UpstreamBroken."""

    @property
    def one_model(self) -> bool:
        """Whether all lines must ask for the same."""
        ...

    @property
    def lines_max(self) -> int:
        """How many it takes."""
        ...

    @property
    def bytes_max(self) -> int:
        """Of all lines together, as they are sent."""
        ...

    def submit(self, lot: Lot, items: Iterable[Item]) -> Talk[str]:
        """Gives the batch to the provider; the id it has there."""
        ...

    def find(self, lot: Lot) -> Talk[str]:
        """The id of a batch that was perhaps submitted before we died; "": it was not."""
        ...

    def look(self, lot: Lot) -> Talk[Progress]:
        """How far it is."""
        ...

    def cancel(self, lot: Lot) -> Talk[None]:
        """Asks for its end; some lines may still be answered."""
        ...

    def read(self, lot: Lot, data: bytes) -> Iterable[Result]:
        """The results in a line of a source, or in all of it."""
        ...


EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"


def parsed(body: bytes) -> dict[str, Any]:
    """A reply, or a line of one, as an object."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamBroken("The provider's reply about a batch is not JSON.") from error
    if not isinstance(found, dict):
        raise UpstreamBroken("The provider's reply about a batch is not an object.")
    return found


def text(found: Mapping[str, Any], name: str) -> str:
    """A field that must be there."""
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise UpstreamBroken(f"The provider's reply about a batch has no {name!r}.")
    return value


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def count(value: object) -> int:
    """The value where it is a number, else 0."""
    return value if isinstance(value, int) else 0


def call(lot: Lot, auth: str, method: str, url: str, body: bytes = b"", **headers: str) -> Call:
    """A call with the provider's key."""
    provider = lot.provider
    usual = {"accept": "application/json", **({"content-type": "application/json"} if body else {})}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(url, body, {**usual, **named, **relay.proof(provider, auth), **provider.headers}, method)

"""What a transport promises.

* `send` returns when the status and headers of the final reply are here (1xx are skipped); the body comes through
  `Answer.chunks`, as it arrives, never held back.
* Nothing is followed, kept or changed on the way: no redirects, no cookies, no decompression.
* An answer closed before its end, or a `send` that is cancelled, ends its connection: the provider sees that we left.
* `sent` is told just before the request goes out, and not at all if it never does: until then nothing is owed.
* Connecting is bounded by `provider.timeouts.connect_s`, a place among `max_connections` included; everything else is
  bounded by the caller.

Raises UpstreamUnreachable (nothing was sent), UpstreamBroken (the provider may have begun to work), UpstreamTimeout;
UpstreamLeft where a connection that had served before ended within `STALE_S` of the request, without a byte of a reply:
it was closed for having been idle while the request was on its way, and on a new one the request can be sent again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from gateway.dialects.base import Call
from gateway.errors import GatewayError

STALE_S = 1.0
"""More than a close needs to get here from anywhere; a provider that took longer may have been at work."""

Sent: TypeAlias = Callable[[], None]


def unheard() -> None:
    """For who need not know that a request went out."""


class Answer(ABC):
    """A reply whose status and headers are here and whose body is still coming.  Use as a context manager."""

    status: int

    @property
    @abstractmethod
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; the last of a repeated one."""

    def header(self, name: str) -> str:
        """One of them; "" where it is not there.  Cheaper than all."""
        return self.headers.get(name, "")

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes.  Raises UpstreamBroken, UpstreamTimeout."""

    @abstractmethod
    async def close(self) -> None:
        """Gives the connection back if the body is at its end, else ends it."""

    async def body(self, limit: int) -> bytes:
        """The body, at most `limit` bytes of it; a body that breaks off is what came."""
        parts: list[bytes] = []
        size = 0
        try:
            async for chunk in self.chunks():
                parts.append(chunk)
                size += len(chunk)
                if size >= limit:
                    break
        except GatewayError:
            pass  # an error page cut short still tells its status
        return b"".join(parts)[:limit]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


class Transport(Protocol):
    """The way to one provider."""

    async def send(self, call: Call, sent: Sent = unheard) -> Answer:
        """Makes the call."""
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...

"""How much of clients' bodies is in memory at once, in this process: bounded, and no tenant takes all of it.

A body counts from its first byte until its request is over.  Who would pass the bound is told to come back: nothing of
it is kept, and nobody who was there before is turned away.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from gateway.errors import Overloaded

TENANT_SHARE = 0.5
"""Of the room, at most, for one tenant: the rest is there for others."""
RETRY_AFTER_S = 2.0


class Room:
    """One per process."""

    def __init__(self) -> None:
        self.taken = 0
        self._by_tenant: dict[str, int] = {}

    def take(self, tenant: str, size: int, most: int) -> None:
        """Raises Overloaded where there are not `size` bytes left, of `most` in all."""
        own = self._by_tenant.get(tenant, 0) + size
        if self.taken + size > most or own > most * TENANT_SHARE:
            raise Overloaded(
                "Too many large requests are being received; try again later.", retry_after_s=RETRY_AFTER_S
            )
        self.taken += size
        self._by_tenant[tenant] = own

    def leave(self, tenant: str, size: int) -> None:
        """Gives it back."""
        self.taken -= size
        left = self._by_tenant[tenant] - size
        if left:
            self._by_tenant[tenant] = left
        else:
            del self._by_tenant[tenant]


class Held:
    """What one request holds; used as a context, it is given back in the end."""

    __slots__ = ("_most", "_room", "_size", "_tenant")

    def __init__(self, room: Room, tenant: str, most: int) -> None:
        self._room, self._tenant, self._most, self._size = room, tenant, most, 0

    def add(self, size: int) -> None:
        """Some more has come.  Raises Overloaded."""
        self._room.take(self._tenant, size, self._most)
        self._size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._size:
            self._room.leave(self._tenant, self._size)

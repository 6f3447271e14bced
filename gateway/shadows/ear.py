"""A copy of what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.pipeline import Send

HEARD_MAX = 256 * 1024
"""Bytes kept of one answer; a longer one is not compared."""


class Ear:
    """A Send that passes everything on, if there is anyone, and keeps it.  `whole`: it was not too long to keep."""

    def __init__(self, send: Send | None = None) -> None:
        self.data = bytearray()
        self.whole = True
        self._send = send

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """See Send."""
        if self._send is not None:
            await self._send.start(status, headers)

    async def chunk(self, data: bytes) -> None:
        """See Send."""
        self._keep(data)
        if self._send is not None:
            await self._send.chunk(data)

    async def end(self, data: bytes) -> None:
        """See Send."""
        self._keep(data)
        if self._send is not None:
            await self._send.end(data)

    def _keep(self, data: bytes) -> None:
        self.whole = self.whole and len(self.data) + len(data) <= HEARD_MAX
        if self.whole:
            self.data += data
        else:
            self.data.clear()

"""Holds of requests that take long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Ledger, Reservation


class Keeper:
    """Keeps holds from expiring while its request lasts; costs a timer where the request is short."""

    def __init__(self, ledger: Ledger, holds: Callable[[], list[Reservation]], hold_s: float) -> None:
        self._ledger, self._holds, self._hold_s = ledger, holds, hold_s
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(hold_s / 3, self._due)

    def stop(self) -> None:
        """The request is over."""
        self._timer.cancel()

    def _due(self) -> None:
        self._task = self._loop.create_task(self._extend())
        self._timer = self._loop.call_later(self._hold_s / 3, self._due)

    async def _extend(self) -> None:
        try:
            for hold in self._holds():
                await self._ledger.extend(hold, self._hold_s)
        except LedgerUnavailable:
            return  # a third of the hold has passed: there are two more tries

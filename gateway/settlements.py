"""Sees to it that every settlement reaches the ledger, now or later.

A ledger that cannot be reached gets the settlement again until it answers; meanwhile the record is on disk.  A gateway
that dies first leaves the hold to expire, and the record from the spool replaces the presumption in SQL.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Ledger, Reservation, Settlement, Spent
from gateway.recorder import Recorder
from gateway.types import Record

WAITING_MAX = 100_000
"""Settlements kept in memory while the ledger is away; past it the holds expire and the spool tells the truth."""
PAUSE_S = 1.0


class Settlements:
    """One per process; `retry` runs beside the requests."""

    def __init__(
        self, ledger: Ledger, recorder: Recorder, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._sleep = sleep
        self._waiting: deque[tuple[Reservation, Spent | None, Record | None]] = deque(maxlen=WAITING_MAX)

    @property
    def waiting(self) -> int:
        """How many the ledger has not heard of yet."""
        return len(self._waiting)

    async def settle(self, reservation: Reservation, spent: Spent, record: Record) -> Settlement | None:
        """Books `spent`; None: the ledger is away, the record is spooled and the settlement will be tried again."""
        try:
            return await self._ledger.settle(reservation, spent, record)
        except LedgerUnavailable:
            self._recorder.spool(record)
            self._waiting.append((reservation, spent, record))
            return None

    async def release(self, reservation: Reservation) -> None:
        """Frees a hold whose request reached no provider."""
        try:
            await self._ledger.release(reservation)
        except LedgerUnavailable:
            self._waiting.append((reservation, None, None))

    async def retry(self) -> None:
        """Until cancelled: brings what waits to the ledger, oldest first."""
        while True:
            await self._sleep(PAUSE_S)
            await self.flush()

    async def flush(self) -> None:
        """Brings what waits to the ledger until it refuses again."""
        while self._waiting:
            oldest = self._waiting[0]
            reservation, spent, record = oldest
            try:
                if spent is None or record is None:
                    await self._ledger.release(reservation)
                else:
                    await self._ledger.settle(reservation, spent, record)
            except LedgerUnavailable:
                return
            if self._waiting and self._waiting[0] is oldest:
                self._waiting.popleft()

"""Sees to it that every settlement reaches the ledger, now or later.

A ledger that cannot be reached gets the settlement again until it answers; meanwhile the record is on disk.  A gateway
that dies first leaves the hold to expire, and the record from the spool replaces the presumption in SQL.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from math import inf
from typing import TypeVar

from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Ledger, Reservation, Settlement, Spent
from gateway.recorder import Recorder
from gateway.types import Record

WAITING_MAX = 100_000
"""Settlements kept in memory while the ledger is away; past it the holds expire and the spool tells the truth."""
PAUSE_S = 1.0
REPLAYED_AT_ONCE = 200

Owed = tuple[Reservation, Spent | None, Record | None]
"""A settlement; without a cost, a release."""


class Settlements:
    """One per process; `retry` runs beside the requests.

    Of a ledger that can forget, `remembers` keeps what it may have to be told again: open holds, and what was settled
    until its record is known to be in SQL.
    """

    def __init__(
        self,
        ledger: Ledger,
        recorder: Recorder,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        remembers: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._sleep = sleep
        self._remembers = remembers
        self._clock = clock
        self._waiting: deque[Owed] = deque(maxlen=WAITING_MAX)
        self._open: dict[str, Reservation] = {}
        self._recent: deque[tuple[float, Owed]] = deque(maxlen=WAITING_MAX)

    @property
    def waiting(self) -> int:
        """How many the ledger has not heard of yet."""
        return len(self._waiting)

    def oldest(self) -> float:
        """Unix seconds when the first request came that a ledger may have to be told of; endless without one."""
        held, owed = self._open.values(), (owed for _, (owed, *_) in self._recent)
        return min((each.draft.at for each in (*held, *owed)), default=inf)

    def opened(self, reservation: Reservation) -> None:
        """The ledger has set this aside."""
        if self._remembers:
            self._open[reservation.id] = reservation

    async def settle(self, reservation: Reservation, spent: Spent, record: Record) -> Settlement | None:
        """Books `spent`; None: the ledger is away, the record is spooled and the settlement will be tried again."""
        try:
            return await self.book(reservation, spent, record)
        except LedgerUnavailable:
            self._recorder.spool(record)
            self._waiting.append((reservation, spent, record))
            return None

    def book(self, reservation: Reservation, spent: Spent, record: Record) -> Awaitable[Settlement]:
        """As `settle`, for who keeps the settlement and asks again.  Raises LedgerUnavailable."""
        self._closed(reservation, spent, record)
        return self._ledger.settle(reservation, spent, record)

    async def release(self, reservation: Reservation) -> None:
        """Frees a hold whose request reached no provider."""
        self._closed(reservation, None, None)
        try:
            await self._ledger.release(reservation)
        except LedgerUnavailable:
            self._waiting.append((reservation, None, None))

    def confirm(self, before: float) -> None:
        """What was settled before this moment (unix seconds) is in SQL."""
        while self._recent and self._recent[0][0] < before:
            self._recent.popleft()

    async def replay(self, adopt: Callable[[Reservation], Awaitable[None]]) -> int:
        """Tells a ledger that may have forgotten it what is open and what was settled of late.  How much that is.

        All of it can be told twice.  Raises LedgerUnavailable.
        """
        held, owed = list(self._open.values()), [each for _, each in self._recent]
        for some in _parts(held):
            await asyncio.gather(*(adopt(each) for each in some))
        for part in _parts(owed):
            await asyncio.gather(*(self._tell(each) for each in part))
        return len(held) + len(owed)

    def _closed(self, *owed: *Owed) -> None:
        if self._remembers:
            self._open.pop(owed[0].id, None)
            self._recent.append((self._clock(), owed))

    async def _tell(self, owed: Owed) -> None:
        reservation, spent, record = owed
        if spent is None or record is None:
            await self._ledger.release(reservation)
        else:
            await self._ledger.settle(reservation, spent, record)

    async def retry(self) -> None:
        """Until cancelled: brings what waits to the ledger, oldest first."""
        while True:
            await self._sleep(PAUSE_S)
            await self.flush()

    async def flush(self) -> None:
        """Brings what waits to the ledger until it refuses again."""
        while self._waiting:
            oldest = self._waiting[0]
            try:
                await self._tell(oldest)
            except LedgerUnavailable:
                return
            if self._waiting and self._waiting[0] is oldest:
                self._waiting.popleft()


T = TypeVar("T")


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[at : at + REPLAYED_AT_ONCE] for at in range(0, len(items), REPLAYED_AT_ONCE))

"""The ledger in this process's memory: for tests, and for nothing that has to survive a restart."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from gateway.ledger import book
from gateway.ledger.base import Balance, Line, Reservation, Settlement, Spent
from gateway.ledger.places import Counters
from gateway.ledger.wire import readable
from gateway.types import Record


class MemoryLedger:
    """See gateway.ledger.base.  `clock` gives unix seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counters = Counters()
        self._store = _Store()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def reserve(self, reservation: Reservation) -> list[Balance]:
        return book.reserve(self._store, reservation, self._counters, self._now_ms())

    async def extend(self, reservation: Reservation, ttl_s: float) -> bool:
        return book.extend(self._store, reservation, ttl_s, self._now_ms())

    async def settle(self, reservation: Reservation, spent: Spent, record: Record) -> Settlement:
        return book.settle(self._store, reservation, spent, record, self._counters, self._now_ms())

    async def release(self, reservation: Reservation) -> None:
        book.release(self._store, reservation, self._now_ms())

    async def expire(self) -> int:
        now_ms = self._now_ms()
        count = book.expire(self._store, now_ms)
        self._store.forget(now_ms)
        return count

    async def balances(self, lines: Sequence[Line]) -> list[Balance]:
        return book.balances(self._store, lines, self._counters, self._now_ms())

    async def outbox(self, count: int) -> list[tuple[str, Record]]:
        waiting = self._store.records
        return await readable([(str(number), waiting[number]) for number in list(waiting)[:count]])

    async def ack(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            self._store.records.pop(int(token), None)

    async def ping(self) -> None:
        return

    async def close(self) -> None:
        return


class _Store:
    """Dictionaries."""

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}
        self._counters: defaultdict[str, dict[int, book.Cell]] = defaultdict(dict)
        self._holds: dict[str, book.Hold] = {}
        self._appended = 0

    def cells(self, key: str) -> dict[int, book.Cell]:
        return self._counters[key]

    def changed(self, key: str, slot: int) -> None:  # noqa: ARG002 - changed in place
        return

    def hold(self, id_: str) -> book.Hold | None:
        return self._holds.get(id_)

    def put(self, hold: book.Hold) -> None:
        self._holds[hold.id] = hold

    def due(self, now_ms: int) -> list[book.Hold]:
        return [hold for hold in self._holds.values() if hold.state is book.State.OPEN and hold.until <= now_ms]

    def append(self, record: bytes) -> None:
        self._appended += 1
        self.records[self._appended] = record

    def forget(self, now_ms: int) -> None:
        """Drops what its time has passed."""
        gone = [hold for hold in self._holds.values() if hold.state is not book.State.OPEN and hold.until <= now_ms]
        for hold in gone:
            del self._holds[hold.id]
        for key, cells in list(self._counters.items()):
            for slot in [slot for slot, cell in cells.items() if 0 < cell.keep <= now_ms]:
                del cells[slot]
            if not cells:
                del self._counters[key]

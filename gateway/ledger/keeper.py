"""Holds of requests that take long."""

from __future__ import annotations

import asyncio
from itertools import takewhile
from typing import Protocol

from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Ledger, Reservation


class Holder(Protocol):
    """A request, known by its identity."""

    def holds(self) -> list[Reservation]:
        """What is set aside for it."""
        ...


class Keeper:
    """Keeps holds from expiring while their requests last.  One timer serves all: most are over before it fires."""

    def __init__(self, ledger: Ledger, hold_s: float) -> None:
        self._ledger, self._hold_s = ledger, hold_s
        self._loop = asyncio.get_running_loop()
        self._due: dict[Holder, float] = {}  # the next to be extended is first
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, holder: Holder) -> None:
        """Its holds are extended, a third of their time after another, until `leave`."""
        due = self._due[holder] = self._loop.time() + self._hold_s / 3
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def leave(self, holder: Holder) -> None:
        """Its request is over."""
        del self._due[holder]

    def _look(self) -> None:
        now = self._loop.time()
        for holder, _ in list(takewhile(lambda entry: entry[1] <= now, self._due.items())):
            del self._due[holder]  # and last again
            self._due[holder] = now + self._hold_s / 3
            task = self._loop.create_task(self._extend(holder))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        first = next(iter(self._due.values()), None)
        self._timer = None if first is None else self._loop.call_at(first, self._look)

    async def _extend(self, holder: Holder) -> None:
        try:
            for hold in holder.holds():
                await self._ledger.extend(hold, self._hold_s)
        except LedgerUnavailable:
            return  # a third of the hold has passed: there are two more tries

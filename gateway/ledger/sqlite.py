"""The ledger in an SQLite file: durable, for any number of processes on one machine.

Calls wait in a queue; a thread takes all that wait and runs them in one transaction, so they share one commit.  Inside
it the arithmetic is gateway.ledger.book on what the transaction read; what it changed is written at its end, in few
statements, because each statement lets go of the interpreter and has to win it back from the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gateway.errors import GatewayError, LedgerUnavailable
from gateway.ledger import book
from gateway.ledger.base import Balance, Line, Reservation, Settlement, Spent
from gateway.ledger.places import Counters
from gateway.ledger.sqlite_store import SqliteStore
from gateway.ledger.wire import readable
from gateway.types import Record

T = TypeVar("T")


@dataclass(slots=True)
class Job:
    """A verb that waits for its transaction.  `work` gets the store and the time in unix milliseconds.

    `id`: of the hold that it will ask for, "" for none.
    """

    work: Callable[[SqliteStore, int], Any]
    answer: asyncio.Future[Any]
    id: str


class SqliteLedger:
    """See gateway.ledger.base.  `clock` gives unix seconds; the file may hold other tables too.

    With `sync`, a commit waits for the disk, so that not even a power cut loses one; without it, only a power cut does.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_timeout_s: float = 2.0,
        sync: bool = True,
    ) -> None:
        self._counters = Counters()
        self._jobs: list[Job] = []
        self._worker = _Worker(path, clock, busy_timeout_s, sync=sync)

    async def reserve(self, reservation: Reservation) -> list[Balance]:
        try:
            return await self._run(
                lambda store, now_ms: book.reserve(store, reservation, self._counters, now_ms), reservation.id
            )
        except asyncio.CancelledError:
            self._submit(lambda store, now_ms: book.release(store, reservation, now_ms), reservation.id)
            raise

    async def extend(self, reservation: Reservation, ttl_s: float) -> bool:
        return await self._run(lambda store, now_ms: book.extend(store, reservation, ttl_s, now_ms), reservation.id)

    async def settle(self, reservation: Reservation, spent: Spent, record: Record) -> Settlement:
        return await self._run(
            lambda store, now_ms: book.settle(store, reservation, spent, record, self._counters, now_ms), reservation.id
        )

    async def release(self, reservation: Reservation) -> None:
        await self._run(lambda store, now_ms: book.release(store, reservation, now_ms), reservation.id)

    async def expire(self) -> int:
        count = 0
        while booked := await self._run(book.expire):
            count += booked
        await self._run(SqliteStore.forget)
        return count

    async def balances(self, lines: Sequence[Line]) -> list[Balance]:
        return await self._run(lambda store, now_ms: book.balances(store, lines, self._counters, now_ms))

    async def outbox(self, count: int) -> list[tuple[str, Record]]:
        waiting = await self._run(lambda store, _: store.waiting(count))
        return await readable([(str(number), record) for number, record in waiting])

    async def ack(self, tokens: Sequence[str]) -> None:
        numbers = [int(token) for token in tokens]
        await self._run(lambda store, _: store.drop(numbers))

    async def ping(self) -> None:
        await self._run(lambda *_: None)

    async def close(self) -> None:
        self._flush()
        await asyncio.get_running_loop().run_in_executor(None, self._worker.stop)

    async def _run(self, work: Callable[[SqliteStore, int], T], id_: str = "") -> T:
        answer: T = await self._submit(work, id_)
        return answer

    def _submit(self, work: Callable[[SqliteStore, int], Any], id_: str) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        if not self._jobs:
            loop.call_soon(self._flush)
        self._jobs.append(Job(work, answer, id_))
        return answer

    def _flush(self) -> None:
        jobs, self._jobs = self._jobs, []
        if jobs:
            self._worker.put(jobs)


class _Worker:
    """The thread that has the file open."""

    def __init__(self, path: Path, clock: Callable[[], float], busy_timeout_s: float, *, sync: bool) -> None:
        self._path = path
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        self._sync = sync
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._store: SqliteStore | None = None
        self._thread: threading.Thread | None = None

    def put(self, jobs: list[Job]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
            self._thread.start()
        self._queue.put(jobs)

    def stop(self) -> None:
        """Finishes what waits, then closes the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        going = True
        while going:
            first = self._queue.get()
            taken = [] if first is None else first
            going = first is not None
            while not self._queue.empty():
                more = self._queue.get()
                going = going and more is not None
                taken = taken + (more or [])
            if taken:
                self._answer(taken, self._commit(taken))
        self._forget_file()

    def _commit(self, jobs: list[Job]) -> list[Any]:
        """The jobs' results or errors, in one transaction; all have failed when it fails."""
        try:
            if self._store is None:
                self._store = SqliteStore(self._path, self._busy_timeout_s, sync=self._sync)
            store = self._store
            with store:
                store.look_up([job.id for job in jobs if job.id])
                now_ms = int(self._clock() * 1000)
                return [_result(job, store, now_ms) for job in jobs]
        except (sqlite3.Error, OSError) as error:
            self._forget_file()
            return [self._unavailable(error) for _ in jobs]
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to be told, and the thread lives on
            self._forget_file()
            return [error] * len(jobs)

    def _unavailable(self, error: Exception) -> LedgerUnavailable:
        failure = LedgerUnavailable(
            f"The spend ledger file {self._path.name} cannot be used: {error}.", retry_after_s=1.0
        )
        failure.__cause__ = error
        return failure

    def _answer(self, jobs: list[Job], results: list[Any]) -> None:
        loop = jobs[0].answer.get_loop()
        try:
            loop.call_soon_threadsafe(_tell, jobs, results)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _forget_file(self) -> None:
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error):
                self._store.close()
            self._store = None


def _result(job: Job, store: SqliteStore, now_ms: int) -> Any:  # noqa: ANN401 - each verb has its own
    if job.answer.cancelled():
        return None
    try:
        return job.work(store, now_ms)
    except (GatewayError, ValueError) as error:
        return error


def _tell(jobs: list[Job], results: list[Any]) -> None:
    for job, result in zip(jobs, results, strict=True):
        if job.answer.done():
            continue
        if isinstance(result, BaseException):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)

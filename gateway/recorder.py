"""Moves usage records to SQL, each exactly once, while nothing on the path of a request waits for it.

    ledger.outbox ---------------------> SQL -> ack
    no ledger: spool(record) -> disk --> SQL -> removed
    no disk either: memory, bounded ---> SQL

A database that is down or slow delays records and loses none: they stay where they are until SQL has them.  A record
that SQL refuses for its content is put into quarantine and holds nobody up.  Written twice is written once: rows go by
record id, and the highest version stays.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from gateway.ledger.base import Ledger
from gateway.ledger.wire import TURN
from gateway.metrics import Metrics
from gateway.spool import BYTES_MAX, Spool
from gateway.sql.database import Database
from gateway.sql.records import Values, named, row, write
from gateway.types import Outcome, Record

log = structlog.get_logger()

BATCH = 500
TOGETHER = 64
"""Records in one transaction: the thread that writes them competes with the requests, for a millisecond at a time."""
MEMORY_MAX = 100_000
PAUSE_S = 0.25
FOLLOW_S = 1.0  # while another worker writes the same outbox
BACKOFF_MAX_S = 15.0
WRITE_S = 10.0
SYNC_S = 0.02  # appends that share one fsync

LOOK_S = 10.0  # between looks for segments of dead workers

Refusals = dict[str, str]
"""Ids of records that SQL refuses for their content, and why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a batch: how many were new to SQL; which are neither there nor in quarantine."""

    new: int
    kept: frozenset[str]


class Recorder:
    """One per process, from `start` to `drain`.  `clock` gives seconds that only go forward."""

    def __init__(
        self,
        ledger: Ledger,
        database_url: str,
        spool_dir: Path,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        *,
        spool_bytes_max: int = BYTES_MAX,
        memory_max: int = MEMORY_MAX,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._ledger = ledger
        self._database = Database(database_url, threads=1)
        self._spool = Spool(spool_dir, spool_bytes_max)
        self._metrics = metrics
        self._clock = clock
        self._chance = chance
        self._memory: deque[Record] = deque()
        self._memory_max = memory_max
        self._outbox_seen = 0
        self._following = False  # another worker was faster with all of the last batch
        self._oldest: list[str] = []  # entry of the outbox when it was last looked at so
        self._appended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0
        self._look_again = 0.0
        self._moving = asyncio.Lock()

    async def start(self) -> None:
        """Begins to move records.  A spool that cannot be opened is reported: records then wait in memory."""
        try:
            await asyncio.to_thread(self._spool.open)
        except OSError as error:
            log.error("the spool cannot be opened", reason=str(error))  # noqa: TRY400  # the reason says it all
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._move()), loop.create_task(self._sync())]

    def spool(self, record: Record) -> None:
        """Keeps a record the ledger did not take.  Never raises: it is on disk, or in memory, or counted as lost."""
        try:
            self._spool.append(record)
        except (OSError, ValueError) as error:
            self._remember(record, error)
        else:
            self._appended.set()

    def pending(self) -> int:
        """Records not in SQL yet: all that are spooled or in memory, and of the ledger's outbox the next batch."""
        return self._spool.waiting + len(self._memory) + self._outbox_seen

    async def drain(self, within_s: float) -> None:
        """Stops, after moving what can be moved within `within_s`.  What is left waits on disk or in the ledger."""
        until = self._clock() + within_s
        self._following = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(until - self._clock()):
                while await self.round():
                    continue
        except Exception as error:  # noqa: BLE001  # whatever it is, the rest of the shutdown goes on
            log.warning("records are left for later", count=self.pending(), reason=_words(error))
        for record in self._memory:
            try:
                self._spool.append(record)
            except (OSError, ValueError) as error:
                self._lose(record, error)
        self._memory.clear()
        self._spool.seal()
        await asyncio.to_thread(self._spool.sync)
        self._database.close()

    async def round(self) -> int:
        """Moves one batch from each source, the spool whole; how many records have left them.

        Raises DatabaseUnavailable, LedgerUnavailable, OSError or what else went wrong; nothing is lost by it.
        """
        async with self._moving:
            moved = await self._from_memory()
            moved += await self._from_spool()
        return moved + await self._from_outbox()

    async def unspool(self) -> None:
        """Brings everything to SQL that waits in memory and on this machine's disk, others' leavings too.

        Raises DatabaseUnavailable.  A disk that cannot be read is reported; what is on it waits until it can.
        """
        async with self._moving:
            while await self._from_memory():
                continue
            self._look_again = 0.0
            try:
                await self._from_spool()
            except OSError as error:
                log.error("the spool cannot be read", reason=str(error))  # noqa: TRY400  # the reason says it all

    def backoff_s(self) -> float:
        """Full jitter: between nothing and a bound that doubles with each failure in a row."""
        return self._chance() * min(BACKOFF_MAX_S, PAUSE_S * (1 << min(self._failures, 10)))

    async def step(self) -> float:
        """One round; the seconds to rest after it."""
        try:
            moved = await self.round()
        except Exception as error:  # noqa: BLE001  # the recorder must outlive every error: records wait, it tries again
            self._failures += 1
            if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                log.warning("records wait", count=self.pending(), failures=self._failures, reason=_words(error))
            return self.backoff_s()
        if self._failures:
            log.info("records flow again", failures=self._failures)
            self._failures = 0
        if self._following:
            return FOLLOW_S
        return 0.0 if moved >= BATCH else PAUSE_S

    async def _move(self) -> None:
        while True:  # noqa: ASYNC110  # a rest, not a wait for something
            await asyncio.sleep(await self.step())

    async def _sync(self) -> None:
        while True:
            await self._appended.wait()
            await asyncio.sleep(SYNC_S)
            self._appended.clear()
            try:
                await asyncio.to_thread(self._spool.sync)
            except OSError as error:
                log.error("the spool cannot be synced", reason=str(error))  # noqa: TRY400  # the reason says it all

    async def _from_memory(self) -> int:
        batch = [self._memory[index] for index in range(min(BATCH, len(self._memory)))]
        if not batch:
            return 0
        stored = await self._store(batch)
        for record in batch:
            self._memory.popleft()
            if record.id in stored.kept:
                self._memory.append(record)
        return len(batch) - len(stored.kept)

    async def _from_spool(self) -> int:
        if not self._spool.waiting and self._clock() < self._look_again:
            return 0
        self._look_again = self._clock() + LOOK_S  # a worker that dies leaves its segment to the others
        moved = 0
        for path in await asyncio.to_thread(self._spool.closed_segments):
            moved += await self._from_segment(path)
        if newest := self._spool.seal():
            await asyncio.to_thread(self._spool.sync)
            moved += await self._from_segment(newest)
        return moved

    async def _from_segment(self, path: Path) -> int:
        moved = kept = 0
        with self._spool.claim(path) as segment:
            if segment is None:
                return 0
            while batch := await asyncio.to_thread(segment.read, BATCH):
                stored = await self._store(batch)
                moved += len(batch)
                kept += len(stored.kept)
            if not kept:
                await asyncio.to_thread(segment.remove)
        return 0 if kept else moved

    async def _from_outbox(self) -> int:
        if self._following and await self._led():
            return 0
        waiting = await self._ledger.outbox(BATCH)
        self._outbox_seen = len(waiting)
        self._following = False
        if waiting:
            stored = await self._store([record for _, record in waiting])
            done = [token for token, record in waiting if record.id not in stored.kept]
            await self._ledger.ack(done)
            self._following = not stored.new
            self._outbox_seen = len(waiting) - len(done)
        return len(waiting) - self._outbox_seen

    async def _led(self) -> bool:
        """Whether another worker still empties the outbox: nothing waits, or something else than at the last look."""
        before, self._oldest = self._oldest, [token for token, _ in await self._ledger.outbox(1)]
        return not self._oldest or self._oldest != before

    async def _store(self, batch: Sequence[Record]) -> Stored:
        """Records into SQL, or into quarantine, a few in each transaction."""
        newest = list({record.id: record for record in sorted(batch, key=attrgetter("version"))}.values())
        parts = [await self._written(newest[at : at + TOGETHER]) for at in range(0, len(newest), TOGETHER)]
        return Stored(sum(part.new for part in parts), frozenset().union(*(part.kept for part in parts)))

    async def _written(self, records: Sequence[Record]) -> Stored:
        by_id = {record.id: record for record in records}
        rows, refused = await _rows(records)
        new, more = await self._database.run(lambda connection: _write(connection, rows), write=True, timeout_s=WRITE_S)
        self._metrics.written(len(new))
        for id_ in new:
            if by_id[id_].outcome is Outcome.PRESUMED:
                self._metrics.observe(by_id[id_])  # nobody who could have counted it is alive
        refusals = {**refused, **more}.items()
        kept = [id_ for id_, reason in refusals if not await self._quarantine(by_id[id_], reason)]
        return Stored(len(new), frozenset(kept))

    async def _quarantine(self, record: Record, reason: str) -> bool:
        try:
            await asyncio.to_thread(self._spool.quarantine_record, record, reason)
        except OSError as error:
            log.error("no room for quarantine", record=record.id, reason=str(error))  # noqa: TRY400  # the reason says it all
            return False
        self._metrics.failed("quarantined")
        log.error("record quarantined", record=record.id, tenant=record.tenant, reason=reason)
        return True

    def _remember(self, record: Record, error: Exception) -> None:
        if len(self._memory) >= self._memory_max:
            self._lose(record, error)
            return
        if not self._memory:
            log.error("the spool refuses records, they wait in memory", reason=str(error))
        self._memory.append(record)
        self._metrics.failed("unspooled")

    def _lose(self, record: Record, error: Exception) -> None:
        self._metrics.failed("lost")
        log.critical("record lost", record=record.id, tenant=record.tenant, nano_usd=record.cost, reason=str(error))


async def _rows(records: Iterable[Record]) -> tuple[list[Values], Refusals]:
    rows: list[Values] = []
    refused: Refusals = {}
    for number, record in enumerate(records, 1):
        if number % TURN == 0:
            await asyncio.sleep(0)
        try:
            rows.append(row(record))
        except Exception as error:  # noqa: BLE001  # no I/O here: whatever it is, it is the record's
            refused[record.id] = _words(error)
    return rows, refused


def _write(connection: Connection, rows: list[Values]) -> tuple[set[str], Refusals]:
    """Ids of the rows that are new, and of those that SQL refuses: found by halves, so that the others go in."""
    if not rows:
        return set(), {}
    try:
        with connection.begin_nested():
            return write(connection, rows), {}
    except Exception as error:
        if not _of_content(error):
            raise
        if len(rows) == 1:
            return set(), {named(rows[0])["id"]: _words(error)}
    half = len(rows) // 2
    first, first_refused = _write(connection, rows[:half])
    second, second_refused = _write(connection, rows[half:])
    return first | second, {**first_refused, **second_refused}


def _of_content(error: Exception) -> bool:
    """Whether a row is refused for what it holds, whoever writes it and whenever."""
    if isinstance(error, DBAPIError):
        too_large = str(getattr(error.orig, "sqlstate", None)).startswith("54")  # PostgreSQL: a limit of the program
        return too_large or isinstance(error, DataError | IntegrityError)
    return isinstance(error, StatementError | OverflowError | TypeError | ValueError)


def _words(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error or type(error).__name__).strip()[:300]

"""Lines of a batch that has ended -> the ledger and the records, each once, and the files that the client gets."""

from __future__ import annotations

import asyncio

from gateway.batches.hold import AT_ONCE
from gateway.batches.nouns import Line
from gateway.batches.results import Reading, Settled, unknown
from gateway.dialects.batches.base import Result
from gateway.ledger.base import Settlement
from gateway.pipeline import Parts
from gateway.sql.files import PART_BYTES, Files, Pen
from gateway.sql.jobs import Job, Jobs


class Settling:
    """Writes the files part by part.  `again`: some lines may be settled already, perhaps long ago.

    The ledger remembers for a day what it has settled; who comes later is told by the records.
    """

    def __init__(
        self, parts: Parts, jobs: Jobs, files: Files, job: Job, reading: Reading | None, *, again: bool
    ) -> None:
        self._parts, self._jobs, self._reading = parts, jobs, reading
        self._again = again
        self._waiting: list[tuple[Line, Settled]] = []
        self._output = _Sheet(files, job, "output")
        self._errors = _Sheet(files, job, "error")
        self.completed = self.failed = self.cost = self.unknown = 0

    @property
    def output_file(self) -> str:
        """Its id; "" where no line was answered."""
        return self._output.id

    @property
    def error_file(self) -> str:
        """Its id; "" where every line was answered."""
        return self._errors.id

    async def add(self, line: Line, result: Result | None) -> None:
        """One line that is over; None: nobody knows how.  Raises LedgerUnavailable, DatabaseUnavailable."""
        known = None if result is None or self._reading is None else self._reading.settled(line, result)
        settled = known or unknown(line)
        self._waiting.append((line, settled))
        if len(self._waiting) >= AT_ONCE:
            await self._book()

    async def end(self) -> None:
        """Every line was added."""
        await self._book()
        await self._output.end()
        await self._errors.end()

    async def drop(self) -> None:
        """What was settled stays so; the files are not wanted."""
        await self._output.drop()
        await self._errors.drop()

    async def _book(self) -> None:
        some, self._waiting = self._waiting, []
        known = await self._jobs.recorded([line.id for line, _ in some]) if self._again else frozenset()
        owed = [(line, settled) for line, settled in some if line.id not in known]
        book = self._parts.settlements.book
        found = await asyncio.gather(*(book(line.held, settled.spent, settled.record) for line, settled in owed))
        for (_, settled), settlement in zip(owed, found, strict=True):
            if settlement is not Settlement.AGAIN:
                self._parts.metrics.observe(settled.record)
        for _, settled in some:
            self.completed += settled.good
            self.failed += not settled.good
            self.cost += settled.record.cost or 0
            self.unknown += settled.record.cost is None
            await (self._output if settled.good else self._errors).write(settled.written)


class _Sheet:
    """A file for the client, made when its first line is written."""

    def __init__(self, files: Files, job: Job, kind: str) -> None:
        self._files, self._job, self._kind = files, job, kind
        self._pen: Pen | None = None
        self._part = bytearray()
        self.id = ""

    async def write(self, line: bytes) -> None:
        self._part += line
        if len(self._part) >= PART_BYTES:
            await self._flush()

    async def end(self) -> None:
        if self._part:
            await self._flush()
        if self._pen is not None:
            self.id = (await self._pen.end()).id

    async def drop(self) -> None:
        if self._pen is not None:
            await self._pen.drop()

    async def _flush(self) -> None:
        if self._pen is None:
            name = f"{self._job.id}_{self._kind}.jsonl"
            self._pen = await self._files.write(self._job.tenant, "batch_output", name)
        await self._pen.part(bytes(self._part))
        self._part.clear()

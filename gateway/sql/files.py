"""Files: what clients upload for batches, what batches put out, and what jobs have to remember.

They are in the database that all gateways share, in parts of bounded size, and end by themselves.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, or_, select, update

from gateway.errors import InvalidRequest, NotFound
from gateway.sql.database import Database
from gateway.sql.schema import file_parts, files

PART_BYTES = 1024 * 1024
KEPT_S = 30 * 86_400.0
INTERNAL = "job"
"""The purpose of files that no client sees."""
TENANT_BYTES_MAX = 2 * 1024**3
WRITE_S = 60.0


@dataclass(frozen=True, slots=True)
class File:
    """One of them, without its content.  Times are unix seconds."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int | None  # None: it is being written
    created: float
    expires: float


class Files:
    """One per process.  Any method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    async def put(
        self, tenant: str, purpose: str, filename: str, parts: Iterable[bytes], kept_s: float = KEPT_S
    ) -> File:
        """A new file that a client brings.  Raises InvalidRequest where its tenant keeps too much already."""
        held = select(func.coalesce(func.sum(files.c.bytes), 0)).where(files.c.tenant == tenant)
        pen = await self.write(tenant, purpose, filename, kept_s)
        pen.room = TENANT_BYTES_MAX - await self._database.run(lambda connection: connection.execute(held).scalar_one())
        for part in parts:
            await pen.part(part)
        return await pen.end()

    async def write(self, tenant: str, purpose: str, filename: str, kept_s: float = KEPT_S) -> Pen:
        """A new file that nobody sees until it has ended."""
        now = self._clock()
        file = File(f"file-{secrets.token_hex(12)}", tenant, purpose, filename[:512], None, now, now + kept_s)
        values = {name: getattr(file, name) for name in File.__dataclass_fields__}
        made = insert(files).values(values)
        await self._database.run(lambda connection: connection.execute(made), write=True)
        return Pen(self._database, file)

    async def get(self, tenant: str, id_: str) -> File:
        """A file that the tenant may see.  Raises NotFound for any other."""
        wanted = select(files).where(files.c.id == id_, files.c.tenant == tenant, *_shown(self._clock()))
        row = await self._database.run(lambda connection: connection.execute(wanted).one_or_none())
        if row is None:
            raise NotFound(f"There is no file {id_[:200]!r}.", param="file_id")
        return _file(row)

    async def page(self, tenant: str, purpose: str, count: int, after: File | None, *, up: bool) -> list[File]:
        """Up to `count` files that come after `after`; `up`: oldest first."""
        query = select(files).where(files.c.tenant == tenant, *_shown(self._clock()))
        if purpose:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            at, id_ = files.c.created, files.c.id
            beyond = at > after.created if up else at < after.created
            query = query.where(or_(beyond, and_(at == after.created, id_ > after.id if up else id_ < after.id)))
        order = (files.c.created, files.c.id) if up else (files.c.created.desc(), files.c.id.desc())
        query = query.order_by(*order).limit(count)
        return [_file(row) for row in await self._database.run(lambda connection: connection.execute(query).all())]

    async def parts(self, id_: str) -> AsyncIterator[bytes]:
        """The content, part by part, as it was written."""
        number = 0
        while True:
            wanted = select(file_parts.c.data).where(file_parts.c.file == id_, file_parts.c.number == number)
            part = await self._database.run(lambda connection, wanted=wanted: connection.execute(wanted).scalar())  # type: ignore[misc]  # bound at once
            if part is None:
                return
            yield part
            number += 1

    async def content(self, id_: str) -> bytes:
        """All of it."""
        return b"".join([part async for part in self.parts(id_)])

    async def delete(self, id_: str) -> None:
        """It is gone."""
        gone = delete(files).where(files.c.id == id_)
        await self._database.run(lambda connection: connection.execute(gone), write=True, timeout_s=WRITE_S)

    async def expire(self) -> None:
        """Files past their time are gone."""
        gone = delete(files).where(files.c.expires < self._clock())
        await self._database.run(lambda connection: connection.execute(gone), write=True, timeout_s=WRITE_S)


class Pen:
    """Writes one file."""

    def __init__(self, database: Database, file: File) -> None:
        self.file = file
        self.room: int | None = None  # bytes at most
        self._database = database
        self._number = self._bytes = 0

    async def part(self, data: bytes) -> None:
        """Some of the content.  Raises InvalidRequest where the tenant keeps too much; the file is then no more."""
        self._bytes += len(data)
        if self.room is not None and self._bytes > self.room:
            await self.drop()
            raise _no_room()
        values = {"file": self.file.id, "number": self._number, "data": data}
        self._number += 1
        await self._database.run(
            lambda connection: connection.execute(insert(file_parts).values(values)), write=True, timeout_s=WRITE_S
        )

    async def end(self, size: int | None = None) -> File:
        """The file is whole; `size`: what it is said to have."""
        whole = self._bytes if size is None else size
        done = update(files).where(files.c.id == self.file.id).values(bytes=whole)
        await self._database.run(lambda connection: connection.execute(done), write=True)
        file = self.file
        return File(file.id, file.tenant, file.purpose, file.filename, whole, file.created, file.expires)

    async def drop(self) -> None:
        """The file never was."""
        gone = delete(files).where(files.c.id == self.file.id)
        await self._database.run(lambda connection: connection.execute(gone), write=True)


def cut(content: bytes | memoryview) -> Iterable[bytes]:
    """Content in parts of the usual size."""
    return (bytes(content[at : at + PART_BYTES]) for at in range(0, len(content), PART_BYTES))


def _shown(now: float) -> tuple[Any, ...]:
    return files.c.purpose != INTERNAL, files.c.bytes.is_not(None), files.c.expires >= now


def _no_room() -> InvalidRequest:
    return InvalidRequest(
        f"A tenant's files may have {TENANT_BYTES_MAX} bytes in all; delete some first.", param="file"
    )


def _file(row: Row[Any]) -> File:
    return File(**{name: getattr(row, name) for name in File.__dataclass_fields__})

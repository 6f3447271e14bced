"""Replies kept for clients that ask again with the same Idempotency-Key.

A memory and not a book: the table is made on first use, rows end by themselves, and it may be dropped at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import orjson
from sqlalchemy import Column, Connection, Double, Integer, LargeBinary, MetaData, Table, Text, delete, select, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from gateway.errors import Conflict
from gateway.sql.database import Database

LEASE_S = 30.0
"""After a crash the same key is served anew when this has passed."""
KEPT_S = 24 * 3600.0

Headers = list[tuple[bytes, bytes]]

_table = Table(
    "replies",
    MetaData(),
    Column("id", Text, primary_key=True),  # digest of tenant, endpoint and key
    Column("fingerprint", Text, nullable=False),  # of the request
    Column("owner", Text, nullable=False),  # the request that is being served, or was
    Column("until", Double, nullable=False, index=True),
    Column("status", Integer),  # none: it is being served
    Column("headers", LargeBinary),
    Column("body", LargeBinary),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A reply as it was sent."""

    status: int
    headers: Headers
    body: bytes


class Claim(Enum):
    """Who serves a key."""

    OURS = "ours"
    ANOTHERS = "anothers"  # it is being served; ask again


class Replies:
    """One per process.  Any method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock
        self._made = False

    async def claim(self, id_: str, fingerprint: str, owner: str) -> Stored | Claim:
        """The reply, or who makes it.  Raises Conflict where the key was used for another request."""
        if not self._made:
            await self._make()
        now = self._clock()

        def work(connection: Connection) -> Stored | Claim:
            connection.execute(delete(_table).where(_table.c.until < now))
            row = connection.execute(select(_table).where(_table.c.id == id_)).one_or_none()
            if row is None:
                values = {"id": id_, "fingerprint": fingerprint, "owner": owner, "until": now + LEASE_S}
                connection.execute(_table.insert().values(values))
                return Claim.OURS
            if row.fingerprint != fingerprint:
                raise Conflict("This Idempotency-Key was used for another request.", param="idempotency-key")
            if row.status is None:
                return Claim.ANOTHERS
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(row.headers)]
            return Stored(row.status, headers, row.body)

        try:
            return await self._database.run(work, write=True)
        except IntegrityError:
            return Claim.ANOTHERS

    async def keep(self, id_: str, owner: str) -> None:
        """It is still being served."""
        await self._set(id_, owner, until=self._clock() + LEASE_S)

    async def finish(self, id_: str, owner: str, reply: Stored) -> None:
        """It was served, with this reply."""
        headers = orjson.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers])
        until = self._clock() + KEPT_S
        await self._set(id_, owner, until=until, status=reply.status, headers=headers, body=reply.body)

    async def forget(self, id_: str, owner: str) -> None:
        """It failed: the key may be used again."""
        mine = delete(_table).where(_table.c.id == id_, _table.c.owner == owner)
        await self._database.run(lambda connection: connection.execute(mine), write=True)

    async def _set(self, id_: str, owner: str, **values: object) -> None:
        mine = update(_table).where(_table.c.id == id_, _table.c.owner == owner).values(**values)
        await self._database.run(lambda connection: connection.execute(mine), write=True)

    async def _make(self) -> None:
        def work(connection: Connection) -> None:
            _table.metadata.create_all(connection)

        try:
            await self._database.run(work, write=True)
        except (IntegrityError, OperationalError, ProgrammingError):
            await self._database.run(work, write=True)  # another worker made it in the same moment
        self._made = True

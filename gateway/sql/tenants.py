"""Tenants, keys and limits that administrators made, and the log of who changed what.

A change, its entry in the log and the next revision are one transaction, and changes come one after another: each
begins by taking the revision's row.  Every worker of every replica asks for the revision once a second and reads all if
it has grown, so a suspension holds everywhere within about a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace
from sqlalchemy import Connection, Select, Table, delete, insert, select, update

from gateway.errors import Conflict, NotFound
from gateway.sql.database import Database, DatabaseUnavailable
from gateway.sql.migrate import upgrade
from gateway.sql.nouns import (
    ALL,
    OWN,
    Snapshot,
    StoredKey,
    StoredLimit,
    StoredTenant,
    assembled,
    key_of,
    key_row,
    limit_of,
    limit_row,
    tenant_of,
    tenant_row,
    zone_of,
)
from gateway.sql.schema import audit, keys, limits, revision, tenants
from gateway.types import Key, Tenant

__all__ = ["DatabaseUnavailable", "Store", "StoredKey", "StoredLimit", "StoredTenant"]

T = TypeVar("T")
Fields = Mapping[str, Any]


class Store:
    """One per process, between `open` and `close`.  Any method may raise DatabaseUnavailable.

    `actor` is who asks, for the log.  Raises NotFound for an id that is not there, Conflict for one that is already.
    """

    def __init__(self, database_url: str, clock: Callable[[], float] = time.time) -> None:
        self._url = database_url
        self._clock = clock
        self.database = Database(database_url)

    async def open(self) -> None:
        """Brings the database to the newest schema.  Raises what the database says."""
        await asyncio.to_thread(upgrade, self._url)

    def close(self) -> None:
        """Gives connections back."""
        self.database.close()

    async def revision(self) -> int:
        """Grows with every change."""
        return await self.database.run(lambda connection: connection.execute(select(revision.c.value)).scalar_one())

    async def snapshot(self) -> Snapshot:
        """Every tenant, and every key that is not revoked, each with its limits; and those of everyone."""

        def read(connection: Connection) -> Snapshot:
            live = select(keys).where(keys.c.revoked.is_(None)).order_by(keys.c.id)
            return assembled(
                _all(connection, select(tenants).order_by(tenants.c.id)),
                _all(connection, live),
                _all(connection, select(limits).order_by(limits.c.created, limits.c.id)),
            )

        return await self.database.run(read)

    # Tenants

    async def tenants(self) -> list[StoredTenant]:
        """All of them, by id."""
        rows = await self._read(select(tenants).order_by(tenants.c.id))
        own = await self._read(select(limits).where(limits.c.key.is_(None)).order_by(limits.c.created, limits.c.id))
        return [_stored_tenant(row, own) for row in rows]

    async def tenant(self, id_: str) -> StoredTenant:
        """One of them."""
        for found in await self.tenants():
            if found.tenant.id == id_:
                return found
        raise NotFound(f"There is no stored tenant {id_!r}.")

    async def create_tenant(self, tenant: Tenant, actor: str) -> StoredTenant:
        """A new one; its limits are added on their own."""

        def work(change: _Change) -> StoredTenant:
            if change.find(tenants, tenant.id) is not None:
                raise Conflict(f"Tenant {tenant.id!r} exists already.", param="id")
            return _stored_tenant(change.add(tenants, "tenant.create", tenant_row(tenant)))

        return await self._change(actor, work)

    async def put_tenant(self, tenant: Tenant, actor: str) -> bool:
        """This tenant as it is given, new or not; limits stay as they are.  True: it is new."""

        def work(change: _Change) -> bool:
            fields = tenant_row(tenant)
            if change.find(tenants, tenant.id) is None:
                change.add(tenants, "tenant.create", fields)
                return True
            change.set(tenants, tenant.id, "tenant.update", {name: fields[name] for name in OWN})
            return False

        return await self._change(actor, work)

    async def suspend(self, id_: str, suspended: bool, actor: str) -> None:
        """From now on it is served no more, or again."""
        action = "tenant.suspend" if suspended else "tenant.resume"
        await self._change(actor, lambda change: change.set(tenants, id_, action, {"suspended": suspended}))

    async def delete_tenant(self, id_: str, actor: str) -> None:
        """With its keys and limits; its records stay."""
        await self._change(actor, lambda change: change.remove(tenants, id_, "tenant.delete"))

    # Keys

    async def keys(self, tenant: str | None = None) -> list[StoredKey]:
        """Those of a tenant or all, revoked ones too, oldest first; each with its limits."""
        query = select(keys).order_by(keys.c.created, keys.c.id)
        rows = await self._read(query if tenant is None else query.where(keys.c.tenant == tenant))
        own = [found for found in await self.limits() if found.key is not None]
        return [
            StoredKey(
                key_of(row, [each.limit for each in own if each.key == row["id"]]), row["created"], row["revoked"]
            )
            for row in rows
        ]

    async def create_key(self, key: Key, actor: str) -> StoredKey:
        """A new key of a stored tenant."""

        def work(change: _Change) -> StoredKey:
            change.need(tenants, key.tenant)
            return _stored_key(change.add(keys, "key.create", key_row(key)))

        return await self._change(actor, work)

    async def rotate_key(self, id_: str, fresh: Key, overlap_s: float, actor: str) -> StoredKey:
        """`fresh` takes the place of a key, with its name, models and limits; the old one holds `overlap_s` longer."""

        def work(change: _Change) -> StoredKey:
            old = change.need(keys, id_)
            if old["revoked"] is not None:
                raise Conflict(f"Key {id_!r} is revoked; create a new one.")
            same = {"tenant": old["tenant"], "name": old["name"], "models": tuple(old["models"])}
            successor = replace(fresh, **same, endpoints=tuple(old["endpoints"] or ALL))
            row = change.add(keys, "key.create", key_row(successor))
            for limit in _all(change.connection, select(limits).where(limits.c.key == id_)):
                copied = {**limit, "id": f"{limit['id']}.{fresh.id}"[:128], "key": fresh.id}
                change.add(limits, "budget.create", copied)
            ends = change.now + overlap_s
            expires = ends if old["expires"] is None else min(ends, old["expires"])
            change.set(keys, id_, "key.rotate", {"expires": expires})
            return _stored_key(row)

        return await self._change(actor, work)

    async def revoke_key(self, id_: str, actor: str) -> None:
        """It proves nothing any more, within a second.  Again changes nothing."""

        def work(change: _Change) -> None:
            if change.need(keys, id_)["revoked"] is None:
                change.set(keys, id_, "key.revoke", {"revoked": change.now})

        await self._change(actor, work)

    # Limits

    async def limits(self, tenant: str | None = None) -> list[StoredLimit]:
        """Those of a tenant and its keys, or all and those of everyone, oldest first."""
        query = select(limits).order_by(limits.c.created, limits.c.id)
        rows = await self._read(query if tenant is None else query.where(limits.c.tenant == tenant))
        zones = {row["id"]: zone_of(row["zone"]) for row in await self._read(select(tenants.c.id, tenants.c.zone))}
        zones[None] = zone_of("")
        return [limit_of(row, zones[row["tenant"]]) for row in rows if row["tenant"] in zones]

    async def put_limit(self, stored: StoredLimit, actor: str, *, create: bool = False) -> bool:
        """This limit as it is given, new or not; with `create` only new.  True: it is new."""

        def work(change: _Change) -> bool:
            if stored.tenant:
                change.need(tenants, stored.tenant)
            if stored.key is not None and change.need(keys, stored.key)["tenant"] != stored.tenant:
                raise NotFound(f"Tenant {stored.tenant!r} has no key {stored.key!r}.", param="key")
            fields = limit_row(stored)
            known = change.find(limits, stored.limit.id)
            if known is None:
                change.add(limits, "budget.create", fields)
                return True
            if create:
                raise Conflict(f"Budget {stored.limit.id!r} exists already.", param="id")
            if known["tenant"] != fields["tenant"]:
                raise Conflict(f"Budget {stored.limit.id!r} belongs to another tenant.", param="id")
            change.set(limits, stored.limit.id, "budget.update", fields)
            return False

        return await self._change(actor, work)

    async def delete_limit(self, id_: str, actor: str) -> None:
        """What was spent under it stays spent."""
        await self._change(actor, lambda change: change.remove(limits, id_, "budget.delete"))

    # The log

    async def log(self, count: int, before: int | None = None) -> list[Fields]:
        """Up to `count` changes, newest first, older than the one with id `before`."""
        query = select(audit).order_by(audit.c.id.desc()).limit(count)
        return await self._read(query if before is None else query.where(audit.c.id < before))

    async def note(self, actor: str, action: str, subject: str, after: Fields) -> None:
        """An entry for what was done elsewhere."""

        def work(change: _Change) -> None:
            change.note(action, subject, after)

        await self._change(actor, work)

    async def _read(self, query: Select[Any]) -> list[Fields]:
        return await self.database.run(lambda connection: _all(connection, query))

    async def _change(self, actor: str, work: Callable[[_Change], T]) -> T:
        def transact(connection: Connection) -> T:
            connection.execute(update(revision).values(value=revision.c.value + 1))
            change = _Change(connection, actor, self._clock())
            result = work(change)
            if not change.made:
                connection.execute(update(revision).values(value=revision.c.value - 1))
            return result

        return await self.database.run(transact, write=True)


@dataclass(slots=True)
class _Change:
    """One transaction of an administrator's, logged as it goes."""

    connection: Connection
    actor: str
    now: float
    made: bool = False

    def find(self, table: Table, id_: str) -> Fields | None:
        rows = _all(self.connection, select(table).where(table.c.id == id_))
        return rows[0] if rows else None

    def need(self, table: Table, id_: str) -> Fields:
        found = self.find(table, id_)
        if found is None:
            raise NotFound(f"There is no stored {_NAMES[table.name]} {id_!r}.")
        return found

    def add(self, table: Table, action: str, fields: Fields) -> Fields:
        stamps = {name: self.now for name in ("created", "updated") if name in table.c}
        row = {**fields, **stamps}
        self.connection.execute(insert(table).values(row))
        self._log(action, row["id"], None, row)
        return {**dict.fromkeys(table.c.keys()), **row}

    def set(self, table: Table, id_: str, action: str, fields: Fields) -> None:
        before = self.need(table, id_)
        if all(before[name] == value for name, value in fields.items()):
            return
        stamps = {"updated": self.now} if "updated" in table.c else {}
        self.connection.execute(update(table).where(table.c.id == id_).values({**fields, **stamps}))
        self._log(action, id_, before, {**before, **fields})

    def remove(self, table: Table, id_: str, action: str) -> None:
        before = self.need(table, id_)
        self.connection.execute(delete(table).where(table.c.id == id_))
        self._log(action, id_, before, None)

    def note(self, action: str, subject: str, after: Fields) -> None:
        self._log(action, subject, None, after)

    def _log(self, action: str, subject: str, before: Fields | None, after: Fields | None) -> None:
        self.made = True
        entry = {"at": self.now, "actor": self.actor, "action": action, "subject": subject}
        self.connection.execute(insert(audit).values({**entry, "before": _told(before), "after": _told(after)}))


_NAMES = {"tenants": "tenant", "keys": "key", "limits": "budget"}


def _told(row: Fields | None) -> dict[str, Any] | None:
    """The row as the log keeps it: without digests."""
    return None if row is None else {name: value for name, value in row.items() if name != "digest"}


def _all(connection: Connection, query: Select[Any]) -> list[Fields]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _stored_tenant(row: Fields, own: list[Fields] | None = None) -> StoredTenant:
    zone = zone_of(row["zone"])
    mine = [limit_of(limit, zone).limit for limit in own or () if limit["tenant"] == row["id"]]
    return StoredTenant(tenant_of(row, mine), row["created"], row["updated"])


def _stored_key(row: Fields) -> StoredKey:
    return StoredKey(key_of(row), row["created"], row["revoked"])

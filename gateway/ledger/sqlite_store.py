"""What the SQLite ledger keeps in its file: counters, holds and the outbox, read once and written once a transaction.

`with store:` is a transaction.  What it read stays known until another process writes to the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from gateway.ledger.book import Cell, Hold, State
from gateway.ledger.places import Take
from gateway.sql.write_ahead import write_ahead

SCHEMA = """
create table if not exists ledger_counters (
    key text not null, slot integer not null, spent integer not null, reserved integer not null, keep integer not null,
    primary key (key, slot)
) without rowid;
create index if not exists ledger_counters_keep on ledger_counters (keep) where keep > 0;
create table if not exists ledger_holds (
    number integer primary key, id text not null unique, state text not null, until integer not null, body blob not null
);
create index if not exists ledger_holds_until on ledger_holds (state, until);
create table if not exists ledger_outbox (number integer primary key autoincrement, record blob not null);
"""
PUT_COUNTERS = (
    "insert into ledger_counters values {} on conflict do update"
    " set spent = excluded.spent, reserved = excluded.reserved, keep = excluded.keep"
)
PUT_HOLDS = (
    "insert into ledger_holds (id, state, until, body) values {} on conflict (id) do update"
    " set state = excluded.state, until = excluded.until, body = excluded.body"
)
LOOK_UP = "select id, state, until, body from ledger_holds where id in ({})"
PUT_RECORDS = "insert into ledger_outbox (record) values {}"

CHECKPOINT_PAGES = 4_000
"""16 MB of log: the pages that every transaction changes are copied to the file a quarter as often."""
EXACT_MAX = 8
KNOWN_MAX = 50_000
DUE_AT_ONCE = 500
FORGOTTEN_AT_ONCE = 5_000

_body = msgspec.msgpack.Encoder().encode
_read_body = msgspec.msgpack.Decoder(tuple[tuple[Take, ...], bytes]).decode
_NOTHING = b""


class SqliteStore:
    """A gateway.ledger.book.Store.  Raises sqlite3.Error; used by one thread."""

    def __init__(self, path: Path, busy_timeout_s: float, *, sync: bool) -> None:
        self._db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
        try:
            write_ahead(self._db, busy_timeout_s)
            self._db.execute(f"pragma synchronous = {'full' if sync else 'normal'}")
            self._db.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
            for statement in filter(str.strip, SCHEMA.split(";")):
                self._db.execute(statement)
        except BaseException:
            self._db.close()
            raise
        self._counters: dict[str, dict[int, Cell]] = {}
        self._holds: dict[str, Hold | None] = {}
        self._changed: dict[tuple[str, int], Cell] = {}
        self._put: dict[str, Hold] = {}
        self._records: list[bytes] = []
        self._version = -1

    def __enter__(self) -> Self:
        self._db.execute("begin immediate")
        (version,) = self._db.execute("pragma data_version").fetchone()
        if version != self._version or len(self._counters) + len(self._holds) > KNOWN_MAX:
            self._forget_known()
            self._version = version
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write()
                self._db.execute("commit")
        finally:
            if self._db.in_transaction:
                self._forget_known()
                self._db.execute("rollback")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    # What book asks for

    def cells(self, key: str) -> dict[int, Cell]:
        known = self._counters.get(key)
        if known is None:
            rows = self._db.execute("select slot, spent, reserved, keep from ledger_counters where key = ?", (key,))
            known = self._counters[key] = {slot: Cell(*rest) for slot, *rest in rows}
        return known

    def changed(self, key: str, slot: int) -> None:
        self._changed[key, slot] = self._counters[key][slot]

    def hold(self, id_: str) -> Hold | None:
        if id_ in self._holds:
            return self._holds[id_]
        row = self._db.execute("select id, state, until, body from ledger_holds where id = ?", (id_,)).fetchone()
        return None if row is None else _hold(row)

    def put(self, hold: Hold) -> None:
        self._put[hold.id] = self._holds[hold.id] = hold

    def due(self, now_ms: int) -> list[Hold]:
        self._write()
        rows = self._db.execute(
            "select id, state, until, body from ledger_holds where state = ? and until <= ? limit ?",
            (State.OPEN, now_ms, DUE_AT_ONCE),
        )
        return [_hold(row) for row in rows]

    def append(self, record: bytes) -> None:
        self._records.append(record)

    # What only the SQLite ledger asks for

    def look_up(self, ids: Sequence[str]) -> None:
        """Reads what is known of these ids in few statements: `hold` would take one for each."""
        unknown = dict.fromkeys(id_ for id_ in ids if id_ not in self._holds)
        self._holds |= unknown
        for row in self._many(LOOK_UP, [(id_,) for id_ in unknown]):
            self._holds[row[0]] = _hold(row)

    def waiting(self, count: int) -> list[tuple[int, bytes]]:
        """The oldest records of the outbox."""
        self._write()
        return self._db.execute("select number, record from ledger_outbox order by number limit ?", (count,)).fetchall()

    def drop(self, numbers: Sequence[int]) -> None:
        """Removes records from the outbox."""
        self._db.executemany("delete from ledger_outbox where number = ?", [(number,) for number in numbers])

    def forget(self, now_ms: int) -> None:
        """Removes counters nobody needs any more and ids nobody will ask for again."""
        self._write()
        closed = f"state in ('{State.PRESUMED}', '{State.SETTLED}', '{State.RELEASED}') and until <= ?"
        self._db.execute(
            "delete from ledger_holds where number in "  # noqa: S608 - the states are our own
            f"(select number from ledger_holds where {closed} limit {FORGOTTEN_AT_ONCE})",
            (now_ms,),
        )
        self._db.execute(
            "delete from ledger_counters where (key, slot) in "  # noqa: S608 - the number is our own
            f"(select key, slot from ledger_counters where keep > 0 and keep <= ? limit {FORGOTTEN_AT_ONCE})",
            (now_ms,),
        )
        self._forget_known()

    def _write(self) -> None:
        if self._changed:
            cells = self._changed.items()
            rows = [(key, slot, cell.spent, cell.reserved, cell.keep) for (key, slot), cell in cells]
            self._many(PUT_COUNTERS, rows)
            self._changed = {}
        if self._put:
            holds = self._put.values()
            self._many(PUT_HOLDS, [_row(hold) for hold in holds])
            for hold in holds:
                if hold.state is not State.OPEN:
                    self._holds.pop(hold.id, None)
            self._put = {}
        if self._records:
            self._many(PUT_RECORDS, [(record,) for record in self._records])
            self._records = []

    def _many(self, statement: str, rows: list[tuple[Any, ...]]) -> list[Any]:
        """Many rows a statement, in sizes of which there are few, so that SQLite need not parse them again."""
        at, found = 0, []
        while at < len(rows):
            left = len(rows) - at
            size = left if left <= EXACT_MAX else min(64, 1 << left.bit_length() - 1)
            values = [value for row in rows[at : at + size] for value in row]
            found += self._db.execute(_for_rows(statement, size, len(rows[at])), values).fetchall()
            at += size
        return found

    def _forget_known(self) -> None:
        self._counters.clear()
        self._holds.clear()
        self._changed, self._put, self._records = {}, {}, []


@lru_cache(maxsize=64)
def _for_rows(statement: str, rows: int, columns: int) -> str:
    return statement.format(", ".join([f"({', '.join('?' * columns)})"] * rows))


def _row(hold: Hold) -> tuple[str, str, int, bytes]:
    body = _body((hold.takes, hold.draft)) if hold.takes or hold.draft else _NOTHING
    return hold.id, hold.state.value, hold.until, body


def _hold(row: tuple[str, str, int, bytes]) -> Hold:
    id_, state, until, body = row
    takes, draft = _read_body(body) if body else ((), _NOTHING)
    return Hold(id_, State(state), until, takes, draft)

"""Usage records in SQL: written exactly once per id, read by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import msgspec
import orjson
from sqlalchemy import ColumnElement, Connection, Integer, Select, Text, TextClause, and_, or_, select, text
from sqlalchemy.dialects import postgresql

from gateway.savings import Saving
from gateway.sql.figures import tag as tag  # noqa: PLC0414  # filters by tag are asked for here, too
from gateway.sql.schema import records
from gateway.sql.stale import outdate
from gateway.types import INPUT_BUCKETS, OUTPUT_BUCKETS, Bucket, Record

Row: TypeAlias = dict[str, Any]

TEXT_MAX = 512
"""Characters kept of a text that is in an index: PostgreSQL refuses index entries above 2.7 KB."""
LONG_MAX = 8192
"""Characters kept of any other text."""
ROWS_AT_ONCE = 100
"""In one statement for SQLite, which takes 32,766 parameters; more rows are hardly quicker."""
PAGE_MAX = 1000
"""Records that one answer holds at most."""

INT_MAX = 2**63

_INDEXED = frozenset({"id", "tenant", "key", "deployment", "task"})
_TEXTS = tuple(
    (column.name, TEXT_MAX if column.name in _INDEXED else LONG_MAX)
    for column in records.c
    if isinstance(column.type, Text)
)
_INTS = tuple(column.name for column in records.c if isinstance(column.type, Integer))
_COLUMNS = tuple(column.name for column in records.c)
_NESTED = frozenset({dict, list, tuple})
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)
_CACHED = frozenset({Bucket.CACHE_READ, Bucket.AUDIO_CACHE_READ})


def row(record: Record) -> Row:
    """The record as columns.  What no SQL text can hold (NUL, half a surrogate pair) becomes U+FFFD.

    Raises OverflowError for a number that no column can hold.
    """
    found: Row = msgspec.structs.asdict(record)
    tokens = record.tokens
    found["outcome"] = record.outcome.value  # a driver takes a plain text at once
    found["hour"] = int(record.at // 3600)
    found["rerated_cost"] = None
    for cause in Saving:
        found[f"saved_{cause}"] = record.savings.get(cause, 0)
    found["input_tokens"] = _sum(tokens, INPUT_BUCKETS)
    found["cached_tokens"] = _sum(tokens, _CACHED)
    found["output_tokens"] = _sum(tokens, OUTPUT_BUCKETS)
    for name, length in _TEXTS:
        words = found[name]
        if not words.isascii() or len(words) > length or "\0" in words:
            found[name] = _text(words, length)
    for name in ("tags", "fees", "flags"):  # where a client's or a provider's words may stand
        if found[name]:
            found[name] = storable(found[name])
    for name in _INTS:
        number = found[name]
        if number is not None and not -INT_MAX <= number < INT_MAX:
            raise OverflowError(f"{name} is {number}, which no column holds")
    return found


def write(connection: Connection, rows: Iterable[Row]) -> set[str]:
    """Puts rows in, or in place of older versions; the ids for which that changed anything.

    Rows go in the order of their ids, so that two writers of the same ids wait for each other and never deadlock.
    """
    newest: dict[str, Row] = {}
    for each in rows:
        known = newest.get(each["id"])
        if known is None or each["version"] > known["version"]:
            newest[each["id"]] = each
    if not newest:
        return set()
    outdate(connection, {each["hour"] for each in newest.values()})
    ordered = [newest[id_] for id_ in sorted(newest)]
    if connection.dialect.name == "postgresql":
        return set(connection.execute(_postgresql(), {"rows": _json(ordered)}).scalars())
    parts = [ordered[at : at + ROWS_AT_ONCE] for at in range(0, len(ordered), ROWS_AT_ONCE)]
    return {id_ for part in parts for id_ in connection.exec_driver_sql(_sqlite(len(part)), _values(part)).scalars()}


@cache
def _postgresql() -> TextClause:
    """All rows as one JSON text that the database takes apart: a tenth of the time that parameters take here."""
    compiled = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types here
    kinds = ", ".join(f'"{column.name}" {column.type.compile(compiled)}' for column in records.c)
    given = f"json_to_recordset(CAST(:rows AS json)) AS given({kinds})"
    return text(_upsert(f"SELECT {_NAMES} FROM {given} WHERE true"))  # noqa: S608  # names from the schema


@cache
def _sqlite(count: int) -> str:
    """So many rows as the driver's own parameters: less than half of what taking JSON apart takes there."""
    places = f"({', '.join('?' * len(_COLUMNS))})"
    return _upsert(f"VALUES {', '.join([places] * count)}")


def _upsert(source: str) -> str:
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in _COLUMNS if name != "id")
    return (
        f"INSERT INTO records ({_NAMES}) {source} "  # names from the schema
        f"ON CONFLICT (id) DO UPDATE SET {changes} WHERE excluded.version > records.version RETURNING id"
    )


def _values(rows: Sequence[Row]) -> tuple[Any, ...]:
    found: list[Any] = []
    for each in rows:
        found += map(each.__getitem__, _COLUMNS)
    return tuple([_json(value) if type(value) in _NESTED else value for value in found])


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records.  Empty fields do not filter; times are unix seconds, [since, until)."""

    since: float | None = None
    until: float | None = None
    equal: Mapping[str, str] = field(default_factory=dict)  # column -> value
    tags: Mapping[str, str] = field(default_factory=dict)
    tasked: bool = False  # only those that belong to a task

    def clauses(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        found: list[ColumnElement[bool]] = [records.c[name] == value for name, value in self.equal.items()]
        found += [tag(name) == value for name, value in self.tags.items()]
        if self.tasked:
            found.append(records.c.task != "")
        if self.since is not None:
            found.append(records.c.at >= self.since)
        if self.until is not None:
            found.append(records.c.at < self.until)
        return found


FILTERS = ("tenant", "key", "model", "route", "deployment", "provider", "user", "task", "outcome", "endpoint")
"""Columns a filter may name."""


Cursor: TypeAlias = tuple[float, str]


def page(connection: Connection, wanted: Filter, count: int, after: Cursor | None = None) -> list[Row]:
    """Up to `count` records, newest first, that come after `after` (the `at` and `id` of the last one seen)."""
    query: Select[Any] = select(records).where(*wanted.clauses())
    if after is not None:
        at, id_ = after
        query = query.where(or_(records.c.at < at, and_(records.c.at == at, records.c.id < id_)))
    query = query.order_by(records.c.at.desc(), records.c.id.desc()).limit(count)
    return [dict(found) for found in connection.execute(query).mappings()]


def _sum(tokens: Mapping[str, int], kinds: frozenset[Bucket]) -> int:
    return sum(count for kind, count in tokens.items() if kind in kinds)


def storable(value: object, length: int = LONG_MAX) -> object:
    """The value, in depth, as any database and any JSON can hold it."""
    if isinstance(value, str):
        return _text(value, length)
    if isinstance(value, Mapping):
        return {_text(str(key), length): storable(inner, length) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [storable(inner, length) for inner in value]
    return value


def _text(value: str, length: int) -> str:
    cut = str(value)[:length]
    if cut.isascii() and "\0" not in cut:
        return cut
    return cut.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")

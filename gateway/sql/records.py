"""Usage records in SQL: written exactly once per id, read by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.sql.schema import records
from gateway.types import INPUT_BUCKETS, OUTPUT_BUCKETS, Bucket, Record

Row: TypeAlias = dict[str, Any]

TEXT_MAX = 512
"""Characters kept of a text that is in an index: PostgreSQL refuses index entries above 2.7 KB."""
LONG_MAX = 8192
"""Characters kept of any other text."""
PAGE_MAX = 1000
"""Records that one answer holds at most."""

_INDEXED = frozenset({"id", "tenant", "key", "deployment", "task"})
_CACHED = frozenset({Bucket.CACHE_READ, Bucket.AUDIO_CACHE_READ})


def row(record: Record) -> Row:
    """The record as columns.  What no SQL text can hold (NUL, half a surrogate pair) becomes U+FFFD."""
    found: Row = {
        name: storable(value, TEXT_MAX if name in _INDEXED else LONG_MAX)
        for name in Record.__dataclass_fields__
        for value in (getattr(record, name),)
    }
    found["hour"] = int(record.at // 3600)
    found["input_tokens"] = _sum(record.tokens, INPUT_BUCKETS)
    found["cached_tokens"] = _sum(record.tokens, _CACHED)
    found["output_tokens"] = _sum(record.tokens, OUTPUT_BUCKETS)
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
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(records)
    statement = insert.on_conflict_do_update(
        index_elements=[records.c.id],
        set_={column.name: insert.excluded[column.name] for column in records.c if column.name != "id"},
        where=insert.excluded.version > records.c.version,
    ).returning(records.c.id)
    result = connection.execute(statement, [newest[id_] for id_ in sorted(newest)])
    return set(result.scalars())


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


def tag(name: str) -> ColumnElement[str]:
    """The value of a tag; NULL where a record has none.  ValueError for a name that no JSON path can hold."""
    if not name or '"' in name or "\\" in name or not name.isprintable():
        raise ValueError("a tag's name must be printable, without quotes and backslashes")
    found: ColumnElement[str] = records.c.tags[name].as_string()
    return found


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
    text = str(value)[:length]
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")

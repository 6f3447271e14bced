"""Usage records in SQL: written exactly once per id, read by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec
import orjson
from sqlalchemy import JSON, Boolean, ColumnElement, Connection, Select, Text, TextClause, and_, or_, select, text
from sqlalchemy.dialects import postgresql

from gateway.savings import Saving
from gateway.sql.figures import tag as tag  # noqa: PLC0414  # filters by tag are asked for here, too
from gateway.sql.schema import records
from gateway.sql.stale import outdate
from gateway.types import INPUT_BUCKETS, OUTPUT_BUCKETS, READ_BUCKETS, Bucket, Outcome, Record

Row: TypeAlias = dict[str, Any]
Values: TypeAlias = list[Any]
"""What is written of a record, in an order of our own."""

TEXT_MAX = 512
"""Characters kept of a text that is in an index: PostgreSQL refuses index entries above 2.7 KB."""
LONG_MAX = 8192
"""Characters kept of any other text."""
ROWS_AT_ONCE = (64, 16, 4, 1)
"""In one statement for SQLite: more are not quicker, and each size takes milliseconds and memory to prepare."""
PAGE_MAX = 1000
"""Records that one answer holds at most."""
INT_MAX = 2**63
"""No column holds as much."""

_INDEXED = frozenset({"id", "tenant", "key", "deployment", "task"})
_SUMS = {
    "input_tokens": INPUT_BUCKETS,
    "cached_tokens": READ_BUCKETS,
    "output_tokens": OUTPUT_BUCKETS,
}
_SAVED = {cause.value: f"saved_{cause}" for cause in Saving}
_FIELDS = Record.__struct_fields__
_SAVINGS = _FIELDS.index("savings")  # which has a column for each cause instead
_COLUMNS = (*(name for name in _FIELDS if name != "savings"), "hour", *_SUMS, *_SAVED.values())
_AT = {name: number for number, name in enumerate(_COLUMNS)}
_KINDS = {name: records.c[name].type for name in _COLUMNS}
_TEXTS = {name: TEXT_MAX if name in _INDEXED else LONG_MAX for name, kind in _KINDS.items() if isinstance(kind, Text)}
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)

_ID, _VERSION, _HOUR, _OUTCOME = (_AT[name] for name in ("id", "version", "hour", "outcome"))
_NESTED = {_AT[name]: "[]" if name == "flags" else "{}" for name, kind in _KINDS.items() if isinstance(kind, JSON)}
_YES_OR_NO = [_AT[name] for name, kind in _KINDS.items() if isinstance(kind, Boolean)]
_SUMMED = {kind.value: [_AT[name] for name, kinds in _SUMS.items() if kind in kinds] for kind in Bucket}
_WORDS = {outcome: outcome.value for outcome in Outcome}
_ZEROS = (0,) * (len(_SUMS) + len(_SAVED))

_texts = itemgetter(*(_AT[name] for name in _TEXTS))
_place = itemgetter(_ID, _VERSION)


def row(record: Record) -> Values:
    """The record as a driver takes it; what is nested is JSON.

    What no SQL text can hold (NUL, half a surrogate pair) becomes U+FFFD.  Raises TypeError for what JSON cannot hold.
    """
    found = [*msgspec.structs.astuple(record), int(record.at // 3600), *_ZEROS]
    for cause, amount in found.pop(_SAVINGS).items():
        if cause in _SAVED:
            found[_AT[_SAVED[cause]]] = amount
    for kind, count in record.tokens.items():
        for number in _SUMMED.get(kind, ()):
            found[number] += count
    found[_OUTCOME] = _WORDS[record.outcome]  # neither a member nor a boolean, which SQLite's driver has to look up
    for number in _YES_OR_NO:
        found[number] = 1 if found[number] else 0
    for number, empty in _NESTED.items():
        found[number] = _nested(found[number]) if found[number] else empty
    words = "".join(_texts(found))
    if len(words) > TEXT_MAX or not words.isascii() or "\0" in words:
        for name, length in _TEXTS.items():
            found[_AT[name]] = _text(found[_AT[name]], length)
    return found


def named(values: Values) -> Row:
    """The same by column."""
    return dict(zip(_COLUMNS, values, strict=True))


def write(connection: Connection, rows: Iterable[Values]) -> set[str]:
    """Puts rows in, or in place of older versions; the ids for which that changed anything.

    Rows go in the order of their ids, so that two writers of the same ids wait for each other and never deadlock.
    Raises what the driver says of a number that no column can hold.
    """
    newest = {each[_ID]: each for each in sorted(rows, key=_place)}
    if not newest:
        return set()
    ordered = list(newest.values())
    outdate(connection, {each[_HOUR] for each in ordered})
    if connection.dialect.name == "postgresql":
        return set(connection.execute(_postgresql(), {"rows": _json(list(map(named, ordered)))}).scalars())
    changed: set[str] = set()
    for part in _parts(ordered):
        values = tuple(chain.from_iterable(part))
        changed.update(connection.exec_driver_sql(_sqlite(len(part)), values).scalars())
    return changed


def _parts(rows: Sequence[Values]) -> Iterator[Sequence[Values]]:
    at = 0
    for size in ROWS_AT_ONCE:
        while at + size <= len(rows):
            yield rows[at : at + size]
            at += size


@cache
def _postgresql() -> TextClause:
    """All rows as one JSON text that the database takes apart: a tenth of the time that parameters take here."""
    compiled = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types here
    kinds = {name: kind.compile(compiled) for name, kind in _KINDS.items()}
    texts = ", ".join(f'"{name}" {"TEXT" if _AT[name] in _NESTED else kind}' for name, kind in kinds.items())
    values = ", ".join(f'CAST("{name}" AS {kind})' for name, kind in kinds.items())
    given = f"json_to_recordset(CAST(:rows AS json)) AS given({texts})"
    return text(_upsert(f"SELECT {values} FROM {given} WHERE true"))  # noqa: S608  # names from the schema


@cache
def _sqlite(count: int) -> str:
    """So many rows as the driver's own parameters: less than half of what taking JSON apart takes there."""
    places = f"({', '.join('?' * len(_COLUMNS))})"
    return _upsert(f"VALUES {', '.join([places] * count)}")


def _upsert(source: str) -> str:
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in (*_COLUMNS, "rerated_cost") if name != "id")
    return (
        f"INSERT INTO records ({_NAMES}) {source} "  # names from the schema
        f"ON CONFLICT (id) DO UPDATE SET {changes} WHERE excluded.version > records.version RETURNING id"
    )


def _nested(value: object) -> str:
    try:
        found = _json(value)
    except TypeError:  # half a surrogate pair
        return _json(storable(value))
    return found if len(found) <= LONG_MAX and "\\u0000" not in found else _json(storable(value))


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

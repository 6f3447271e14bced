"""Rows of text as CSV, JSON lines or Parquet, written as they come."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, TypeAlias

import orjson

Row: TypeAlias = Mapping[str, Any]

FORMULA = ("=", "+", "-", "@", "\t", "\r")
PARQUET_ROWS = 10_000


def as_csv(columns: Sequence[str], rows: Iterable[Row], out: IO[bytes]) -> None:
    """What a spreadsheet would take for a formula is quoted; an absent value is empty."""
    writer = csv.writer(_Encoded(out))
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])


def as_json(columns: Sequence[str], rows: Iterable[Row], out: IO[bytes]) -> None:
    """One object a line."""
    for row in rows:
        out.write(orjson.dumps({name: row[name] for name in columns}) + b"\n")


def as_parquet(columns: Sequence[str], rows: Iterable[Row], out: IO[bytes]) -> None:
    """Columns of text and whole numbers.  Needs pyarrow."""
    import pyarrow as pa  # noqa: PLC0415  # large, and only for this form
    import pyarrow.parquet as pq  # noqa: PLC0415  # the same

    writer: Any = None
    batch: list[Row] = []

    def flush() -> None:
        nonlocal writer
        kinds = [(name, pa.int64() if name.endswith("_nano_usd") else pa.string()) for name in columns]
        table = pa.table(
            {name: [_arrow(row[name], name) for row in batch] for name in columns}, schema=pa.schema(kinds)
        )
        writer = writer or pq.ParquetWriter(out, table.schema)
        writer.write_table(table)
        batch.clear()

    for row in rows:
        batch.append(row)
        if len(batch) >= PARQUET_ROWS:
            flush()
    if batch or writer is None:
        flush()
    writer.close()


FORMS: Mapping[str, Callable[[Sequence[str], Iterable[Row], IO[bytes]], None]] = {
    "csv": as_csv,
    "json": as_json,
    "parquet": as_parquet,
}


class _Encoded:
    """What csv writes to."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, text: str) -> int:
        return self._out.write(text.encode())


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(value: str) -> bool:
    return value[1:].replace(".", "", 1).isdigit()


def _arrow(value: object, name: str) -> object:
    return value if value is None or name.endswith("_nano_usd") else str(value)

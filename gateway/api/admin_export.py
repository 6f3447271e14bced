"""Records as JSON, NDJSON and CSV, page by page: no report holds them all, nor a transaction open while it is read."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson

from gateway.api.admin_shapes import money
from gateway.errors import InvalidRequest
from gateway.savings import Saving
from gateway.sql import records
from gateway.sql.records import Cursor, Filter
from gateway.sql.schema import records as table
from gateway.sql.tenants import Store

MONEY: tuple[str, ...] = (
    "cost",
    "reported_cost",
    "calculated_cost",
    "rerated_cost",
    "baseline_cost",
    "overhead_cost",
    "reserved",
)
MONEY = (*MONEY, *(f"saved_{cause}" for cause in Saving))
COLUMNS = tuple(str(column.name) for column in table.c if column.name != "hour")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def record_shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """One record as JSON."""
    shown = {name: money(row[name]) if name in MONEY else row[name] for name in COLUMNS}
    return {"object": "record", **shown, "components": {name: money(nano) for name, nano in row["components"].items()}}


def cursor_text(row: Mapping[str, Any]) -> str:
    """Where the page that ends with this record ends."""
    return base64.urlsafe_b64encode(orjson.dumps([row["at"], row["id"]])).decode()


def page_after(text: str | None) -> Cursor | None:
    """The place that `cursor_text` wrote.  Raises InvalidRequest for any other text."""
    if text is None:
        return None
    try:
        at, id_ = orjson.loads(base64.urlsafe_b64decode(text))
        return float(at), str(id_)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidRequest("`after` must be the `next` of the page before.", param="after") from None


async def stream(store: Store, wanted: Filter, after: Cursor | None, format_: str) -> AsyncIterator[bytes]:
    """All records from `after` on.  A database that goes away breaks the stream off: it never looks complete."""
    write: Callable[[Mapping[str, Any]], bytes] = _csv_line if format_ == "csv" else _json_line
    if format_ == "csv":
        yield _line([f"{name}_nano_usd" if name in MONEY else name for name in COLUMNS])
    while True:
        rows = await store.database.run(_page(wanted, after))
        if rows:
            yield b"".join(write(row) for row in rows)
        if len(rows) < records.PAGE_MAX:
            return
        after = (rows[-1]["at"], rows[-1]["id"])


def _page(wanted: Filter, after: Cursor | None) -> Callable[[Any], list[records.Row]]:
    return lambda connection: records.page(connection, wanted, records.PAGE_MAX, after)


def _json_line(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record_shown(row)) + b"\n"


def _csv_line(row: Mapping[str, Any]) -> bytes:
    return _line([_cell(row[name]) for name in COLUMNS])


def _cell(value: object) -> object:
    """A client's text that a spreadsheet would take for a formula is quoted."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _line(cells: list[Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().encode()

"""OpenAI's batches: a file of lines goes up, a file of results comes down.

https://platform.openai.com/docs/api-reference/batch.  `options: {batches: openai}` says that a provider has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from urllib.parse import quote

import msgspec

from gateway.dialects.batches.base import (
    CANCELLED,
    EXPIRED,
    Item,
    Lot,
    Progress,
    Result,
    Talk,
    call,
    count,
    mapping,
    parsed,
    text,
)

BOUNDARY = "tollgate-batch-5d41c7e0b2a94f6e"
NAME = "tollgate-batch"
"""In the metadata of each batch: what we call it."""
LISTED = 100
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})


class OpenAIBatches:
    """See BatchWire."""

    one_model: ClassVar[bool] = True
    lines_max: ClassVar[int] = 50_000
    bytes_max: ClassVar[int] = 200 * 1024 * 1024

    def submit(self, lot: Lot, items: Iterable[Item]) -> Talk[str]:
        """The file, then the batch."""
        form = f"multipart/form-data; boundary={BOUNDARY}"
        body = _form(lot.name, b"\n".join(_line(item) for item in items))
        uploaded = yield call(lot, "bearer", "POST", _url(lot, "/files"), body, content_type=form)
        asked = {
            "input_file_id": text(parsed(uploaded), "id"),
            "endpoint": lot.path,
            "completion_window": "24h",
            "metadata": {NAME: lot.name},
        }
        made = yield call(lot, "bearer", "POST", _url(lot, "/batches"), msgspec.json.encode(asked))
        return text(parsed(made), "id")

    def find(self, lot: Lot) -> Talk[str]:
        """By the name in its metadata."""
        listed = yield call(lot, "bearer", "GET", _url(lot, f"/batches?limit={LISTED}"))
        for each in parsed(listed).get("data") or ():
            if mapping(mapping(each).get("metadata")).get(NAME) == lot.name:
                return text(each, "id")
        return ""

    def look(self, lot: Lot) -> Talk[Progress]:
        """See BatchWire."""
        found = parsed((yield call(lot, "bearer", "GET", _url(lot, f"/batches/{quote(lot.id, safe='')}"))))
        status = text(found, "status")
        counts = mapping(found.get("request_counts"))
        outputs = [found.get(name) for name in ("output_file_id", "error_file_id")]
        files = [quote(str(id_), safe="") for id_ in outputs if id_]
        used = [quote(str(id_), safe="") for id_ in (found.get("input_file_id"),) if id_]
        return Progress(
            over=status if status in _OVER else "",
            reason=_reason(found.get("errors")),
            completed=count(counts.get("completed")),
            failed=count(counts.get("failed")),
            sources=tuple(
                call(lot, "bearer", "GET", _url(lot, f"/files/{id_}/content"), accept="*/*") for id_ in files
            ),
            tidying=tuple(call(lot, "bearer", "DELETE", _url(lot, f"/files/{id_}")) for id_ in (*used, *files)),
        )

    def cancel(self, lot: Lot) -> Talk[None]:
        """See BatchWire."""
        yield call(lot, "bearer", "POST", _url(lot, f"/batches/{quote(lot.id, safe='')}/cancel"), b"{}")

    def read(self, lot: Lot, data: bytes) -> Iterable[Result]:  # noqa: ARG002 - every line names itself
        """See BatchWire."""
        yield _result(data)


def _url(lot: Lot, path: str) -> str:
    base = lot.provider.base_url.rstrip("/") or f"simulated://{lot.provider.id}/v1"
    return base + path


def _line(item: Item) -> bytes:
    named = {"custom_id": item.id, "method": "POST", "url": item.path, "body": msgspec.Raw(item.body)}
    return msgspec.json.encode(named)


def _form(name: str, content: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def _reason(errors: object) -> str:
    said = mapping(errors).get("data")
    each = [mapping(error).get("message") for error in said] if isinstance(said, list) else []
    return "; ".join(str(message) for message in each[:3] if message)


class _Response(msgspec.Struct):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_LINE = msgspec.json.Decoder(_Line)


def _result(raw: bytes) -> Result:
    try:
        line = _LINE.decode(raw)
    except (ValueError, RecursionError):
        return Result(str(parsed(raw).get("custom_id") or ""), 502)  # nothing of it can be billed or read
    if line.response is not None and line.response.status_code:
        return Result(line.custom_id, line.response.status_code, bytes(line.response.body))
    error = bytes(line.error)
    code = str(mapping(msgspec.json.decode(error)).get("code") or "")
    if code in (EXPIRED, CANCELLED):
        return Result(line.custom_id, code=code)
    return Result(line.custom_id, 500, b'{"error":%b}' % error)

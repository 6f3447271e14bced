"""Anthropic's Message Batches: the lines go up in one request, the results come down line by line.

https://docs.anthropic.com/en/api/creating-message-batches
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from gateway.dialects.anthropic_messages import VERSION
from gateway.dialects.base import Call
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

LISTED = 100
SKEW_S = 60.0
"""Between the provider's clock and ours."""


class AnthropicBatches:
    """See BatchWire."""

    one_model: ClassVar[bool] = False
    lines_max: ClassVar[int] = 100_000
    bytes_max: ClassVar[int] = 250 * 1024 * 1024

    def submit(self, lot: Lot, items: Iterable[Item]) -> Talk[str]:
        """See BatchWire."""
        requests = [{"custom_id": item.id, "params": msgspec.Raw(item.body)} for item in items]
        made = yield _call(lot, "POST", "", msgspec.json.encode({"requests": requests}))
        return text(parsed(made), "id")

    def find(self, lot: Lot) -> Talk[str]:
        """A batch has no name there: one of as many lines, made since, that is nobody else's."""
        listed = yield _call(lot, "GET", f"?limit={LISTED}")
        for each in parsed(listed).get("data") or ():
            found = mapping(each)
            lines = sum(count(number) for number in mapping(found.get("request_counts")).values())
            if lines == lot.lines and _at(found) >= lot.created - SKEW_S and found.get("id") not in lot.taken:
                return text(found, "id")
        return ""

    def look(self, lot: Lot) -> Talk[Progress]:
        """See BatchWire."""
        found = parsed((yield _call(lot, "GET", _below(lot))))
        status = text(found, "processing_status")
        counts = {name: count(number) for name, number in mapping(found.get("request_counts")).items()}
        return Progress(
            over=_over(found, counts) if status == "ended" else "",
            completed=counts.get("succeeded", 0),
            failed=sum(counts.get(name, 0) for name in ("errored", "canceled", "expired")),
            sources=(_call(lot, "GET", _below(lot) + "/results"),) if status == "ended" else (),
        )

    def cancel(self, lot: Lot) -> Talk[None]:
        """See BatchWire."""
        yield _call(lot, "POST", _below(lot) + "/cancel", b"{}")

    def read(self, lot: Lot, data: bytes) -> Iterable[Result]:  # noqa: ARG002 - every line names itself
        """See BatchWire."""
        yield _result(data)


def _call(lot: Lot, method: str, below: str, body: bytes = b"") -> Call:
    provider = lot.provider
    path = str(provider.options.get("path", "/v1/messages"))
    version = str(provider.options.get("version", VERSION))
    url = f"{provider.base_url.rstrip('/')}{path}/batches{below}"
    return call(lot, "x-api-key", method, url, body, anthropic_version=version)


def _below(lot: Lot) -> str:
    return f"/{quote(lot.id, safe='')}"


def _over(found: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    if counts.get("canceled") or (found.get("cancel_initiated_at") and not counts.get("expired")):
        return "cancelled"
    return "expired" if counts.get("expired") else "completed"


def _at(found: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(found.get("created_at"))).timestamp()
    except ValueError:
        return 0.0


class _Told(msgspec.Struct):
    type: str = ""
    message: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    custom_id: str
    result: _Told


_LINE = msgspec.json.Decoder(_Line)
_CODES = {"expired": EXPIRED, "canceled": CANCELLED}
_STATUS = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


def _result(raw: bytes) -> Result:
    try:
        line = _LINE.decode(raw)
    except (ValueError, RecursionError):
        return Result(str(parsed(raw).get("custom_id") or ""), 502)
    told = line.result
    if told.type in _CODES:
        return Result(line.custom_id, code=_CODES[told.type])
    if told.type == "succeeded":
        return Result(line.custom_id, 200, bytes(told.message))
    error = bytes(told.error) or b"{}"
    said = parsed(error)
    kind = str(mapping(said.get("error")).get("type") or said.get("type"))
    return Result(line.custom_id, _STATUS.get(kind, 500), error)

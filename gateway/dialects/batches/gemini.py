"""Gemini's batch mode: the lines go up in one request, the results come down in one reply.

https://ai.google.dev/gemini-api/docs/batch-api.  On Vertex AI batches go through a storage bucket, which is not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from gateway.dialects.base import Call
from gateway.dialects.batches.base import Item, Lot, Progress, Result, Talk, call, count, mapping, parsed, text
from gateway.errors import UpstreamBroken

LISTED = 100
_OVER = {"SUCCEEDED": "completed", "FAILED": "failed", "CANCELLED": "cancelled", "EXPIRED": "expired"}
_STATUS = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 13: 500, 14: 503, 16: 401}
"""HTTP's numbers for those of google.rpc.Code."""


class GeminiBatches:
    """See BatchWire."""

    one_model: ClassVar[bool] = True
    lines_max: ClassVar[int] = 50_000
    bytes_max: ClassVar[int] = 18 * 1024 * 1024  # of 20 MB that a request may have, names included

    def submit(self, lot: Lot, items: Iterable[Item]) -> Talk[str]:
        """See BatchWire."""
        requests = [{"request": msgspec.Raw(item.body), "metadata": {"key": item.id}} for item in items]
        batch = {"display_name": lot.name, "input_config": {"requests": {"requests": requests}}}
        where = lot.model if "/" in lot.model else f"{lot.provider.options.get('path', '/models')}/{lot.model}"
        method = f"/{quote(where.lstrip('/'))}:batchGenerateContent"
        made = yield _call(lot, "POST", method, msgspec.json.encode({"batch": batch}))
        return text(parsed(made), "name")

    def find(self, lot: Lot) -> Talk[str]:
        """By its display name."""
        listed = yield _call(lot, "GET", f"/batches?pageSize={LISTED}")
        for each in parsed(listed).get("operations") or ():
            told = mapping(mapping(each).get("metadata"))
            if lot.name in (told.get("displayName"), told.get("display_name")):
                return text(each, "name")
        return ""

    def look(self, lot: Lot) -> Talk[Progress]:
        """The reply holds the results, so it is asked for again when they are wanted."""
        source = _call(lot, "GET", _name(lot))
        found = parsed((yield source))
        told = mapping(found.get("metadata"))
        stats = mapping(told.get("batchStats"))
        over = _OVER.get(str(told.get("state")).rpartition("_")[2], "")
        reason = str(mapping(found.get("error")).get("message") or "")
        return Progress(
            over=over,
            reason=reason,
            completed=_number(stats.get("successfulRequestCount")),
            failed=_number(stats.get("failedRequestCount")),
            sources=(source,) if over else (),
            whole=True,
        )

    def cancel(self, lot: Lot) -> Talk[None]:
        """See BatchWire."""
        yield _call(lot, "POST", f"{_name(lot)}:cancel", b"{}")

    def read(self, lot: Lot, data: bytes) -> Iterable[Result]:  # noqa: ARG002 - every result names itself
        """See BatchWire."""
        found = parsed(data)
        output = mapping(found.get("response")) or mapping(mapping(found.get("metadata")).get("output"))
        inlined = mapping(output.get("inlinedResponses")).get("inlinedResponses")
        return [_result(mapping(each)) for each in inlined] if isinstance(inlined, list) else []


def _call(lot: Lot, method: str, path: str, body: bytes = b"") -> Call:
    return call(lot, "x-goog-api-key", method, lot.provider.base_url.rstrip("/") + path, body)


def _name(lot: Lot) -> str:
    if not lot.id.startswith("batches/"):
        raise UpstreamBroken(f"Provider {lot.provider.id} calls a batch {lot.id[:64]!r}.")
    return "/" + quote(lot.id)


def _number(value: object) -> int:
    """Google writes 64 bits as text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else count(value)


def _result(each: Mapping[str, Any]) -> Result:
    key = str(mapping(each.get("metadata")).get("key") or "")
    if isinstance(each.get("response"), dict):
        return Result(key, 200, msgspec.json.encode(each["response"]))
    error = mapping(each.get("error"))
    code = count(error.get("code"))
    return Result(key, code if code >= 400 else _STATUS.get(code, 500), msgspec.json.encode({"error": error}))

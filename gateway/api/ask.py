"""A client's HTTP request -> Request.  Pure; bad input is named with its place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from random import getrandbits
from typing import Any

import orjson

from gateway import multipart
from gateway.dialects import stored
from gateway.errors import InvalidRequest, NotFound, Unauthorized
from gateway.types import NANO, Format, Key, NanoUSD, Request, Tenant

FORMS = frozenset({Format.TRANSCRIPTIONS, Format.TRANSLATIONS, Format.IMAGE_EDITS, Format.IMAGE_VARIATIONS})
"""What may come as multipart/form-data."""
PASSED_ON = frozenset(
    {"anthropic-version", "anthropic-beta", "openai-beta", "idempotency-key", "traceparent", "tracestate"}
)
PATIENCE = ("x-stainless-read-timeout", "x-stainless-timeout")
READ = PASSED_ON.union(
    PATIENCE,
    ("authorization", "x-api-key", "content-type"),
    ("x-tollgate-route", "x-tollgate-tags", "x-tollgate-user", "x-tollgate-task"),
    ("x-tollgate-max-cost-usd", "x-tollgate-deadline"),
)
"""Every header that is looked at here: a client sends twice as many, and they are left as they are."""
_NAMES = {name.encode(): name for name in READ}
PATIENCE_MAX_S = 86_400.0
DEADLINE_MAX_S = 30 * 86_400.0
TAGS_MAX = 20
TEXT_MAX = 256


def new_request_id() -> str:
    """Sortable by time (microseconds), unique by 64 random bits.  A name, and no secret."""
    return f"req_{int(time.time() * 1e6):014x}{getrandbits(64):016x}"


def headers_of(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Those in READ.  Header names are lower case already; the last of a repeated one wins."""
    return {_NAMES[name]: value.decode("latin-1") for name, value in raw if name in _NAMES}


def secret_of(headers: Mapping[str, str]) -> str:
    """The key as it was sent.  Raises Unauthorized where there is none."""
    authorization = headers.get("authorization", "")
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() == "bearer" and (secret := secret.strip()):
        return secret
    if key := headers.get("x-api-key"):
        return key
    raise Unauthorized("No API key: send `Authorization: Bearer KEY` or `x-api-key: KEY`.")


def parsed(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object.  Raises InvalidRequest with line and column."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    if not isinstance(body, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {_kind(body)}.")
    return body


def request_of(
    request_id: str, format_: Format, raw: bytes, headers: Mapping[str, str], tenant: Tenant, key: Key, now: float
) -> Request:
    """The request as the rest of the gateway knows it."""
    body, form = _read(raw, format_, headers)
    model = headers.get("x-tollgate-route") or body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` must be a non-empty string.", param="model")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest(f"`stream` must be true or false, not {_kind(stream)}.", param="stream")
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    passed_on = {name: headers[name] for name in PASSED_ON if name in headers}
    return Request(
        request_id,
        format_,
        raw=raw,
        body=body,
        model=model,
        stream=bool(stream) or body.get("stream_format") == "sse",
        received=now,
        key=key,
        tags=_tags(headers.get("x-tollgate-tags"), tenant),
        user=_text(headers.get("x-tollgate-user") or body.get("user") or metadata.get("user_id")),
        task=_text(headers.get("x-tollgate-task") or metadata.get("task")),
        cost_max=dollars_of(headers.get("x-tollgate-max-cost-usd")),
        deadline_s=deadline_of(headers.get("x-tollgate-deadline"), now),
        headers=passed_on | form,
        timeout_s=_patience(headers),
        pinned=_pinned(body, tenant) if format_ is Format.RESPONSES else "",
    )


def _read(raw: bytes, format_: Format, headers: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of the body, and the header that a form cannot be read without."""
    if format_ in FORMS:
        content_type = headers.get("content-type", "")
        boundary = multipart.boundary(content_type)
        if boundary is not None:
            body = multipart.fields(raw, boundary)
            if "stream" in body:
                body["stream"] = body["stream"] == "true"
            return body, {"content-type": content_type}
    return parsed(raw), {}


def _pinned(body: Mapping[str, Any], tenant: Tenant) -> str:
    """The deployment that holds what the request builds on."""
    before = body.get("previous_response_id")
    if before is None:
        return ""
    try:
        return stored.read(str(before), tenant.id).deployment
    except NotFound as unknown:
        raise InvalidRequest(unknown.message, param="previous_response_id") from None


def _tags(header: str | None, tenant: Tenant) -> Mapping[str, str]:
    if not header:
        return tenant.tags
    pairs = [pair.partition("=") for pair in header.split(",") if pair.strip()]
    if len(pairs) > TAGS_MAX or any(not name.strip() or not equals for name, equals, _ in pairs):
        raise InvalidRequest(
            f"`x-tollgate-tags` must be name=value pairs with commas, at most {TAGS_MAX}.", param="x-tollgate-tags"
        )
    return {**{name.strip()[:TEXT_MAX]: value.strip()[:TEXT_MAX] for name, _, value in pairs}, **tenant.tags}


def _text(value: object) -> str:
    return value[:TEXT_MAX] if isinstance(value, str) else ""


def _patience(headers: Mapping[str, str]) -> float | None:
    """How long an official SDK waits, as it says itself (Python: between two reads; JavaScript: for the response)."""
    for name in PATIENCE:
        if (said := headers.get(name)) is not None:
            try:
                seconds = float(said)
            except ValueError:
                return None
            return seconds if 0 < seconds < PATIENCE_MAX_S else None
    return None


def dollars_of(header: str | None) -> NanoUSD | None:
    """The amount in `x-tollgate-max-cost-usd`; None where it is not sent.  Raises InvalidRequest."""
    if header is None:
        return None
    try:
        amount = Decimal(header)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= 9_000_000:
        raise InvalidRequest(
            "`x-tollgate-max-cost-usd` must be dollars, such as 0.05.", param="x-tollgate-max-cost-usd"
        )
    return int(amount * NANO)


def deadline_of(header: str | None, now: float) -> float | None:
    """Seconds from `now` to what `x-tollgate-deadline` says; None where it is not sent.  Raises InvalidRequest."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = _until(header.strip(), now)
    if not 0 < seconds <= DEADLINE_MAX_S:
        raise InvalidRequest(
            "`x-tollgate-deadline` must be seconds from now, such as 1800, or a time to come with its zone, such as "
            "2027-01-31T18:00:00Z; 30 days from now at most.",
            param="x-tollgate-deadline",
        )
    return seconds


def _until(moment: str, now: float) -> float:
    """Seconds to an ISO 8601 time with a zone; in the past for what is none."""
    try:
        at = datetime.fromisoformat(moment)
        return at.timestamp() - now if at.tzinfo is not None else -1.0
    except (ValueError, OverflowError):
        return -1.0


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")

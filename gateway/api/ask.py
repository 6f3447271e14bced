"""A client's HTTP request -> Request.  Pure; bad input is named with its place."""

from __future__ import annotations

import os
import time
from binascii import hexlify
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from gateway.errors import InvalidRequest, Unauthorized
from gateway.types import NANO, Format, Key, NanoUSD, Request, Tenant

PASSED_ON = frozenset({"anthropic-version", "anthropic-beta", "openai-beta", "idempotency-key"})
TAGS_MAX = 20
TEXT_MAX = 256


def new_request_id() -> str:
    """Sortable by time (microseconds), unique by 64 random bits."""
    return f"req_{int(time.time() * 1e6):014x}{hexlify(os.urandom(8)).decode()}"


def headers_of(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header names are lower case already; the last of a repeated one wins."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def secret_of(headers: Mapping[str, str]) -> str:
    """The key as it was sent.  Raises Unauthorized where there is none."""
    authorization = headers.get("authorization", "")
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
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
    body = parsed(raw)
    model = headers.get("x-tollgate-route") or body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` must be a non-empty string.", param="model")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest(f"`stream` must be true or false, not {_kind(stream)}.", param="stream")
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return Request(
        id=request_id,
        format=format_,
        raw=raw,
        body=body,
        model=model,
        stream=bool(stream),
        received=now,
        key=key,
        tags=_tags(headers.get("x-tollgate-tags"), tenant),
        user=_text(headers.get("x-tollgate-user") or body.get("user") or metadata.get("user_id")),
        task=_text(headers.get("x-tollgate-task") or metadata.get("task")),
        cost_max=_dollars(headers.get("x-tollgate-max-cost-usd")),
        headers={name: headers[name] for name in PASSED_ON if name in headers},
    )


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


def _dollars(header: str | None) -> NanoUSD | None:
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

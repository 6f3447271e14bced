"""Errors as clients see them: in the shape of the API they speak."""

from __future__ import annotations

import math
import time
from typing import Any

import orjson

from gateway.api.reply import Reply
from gateway.errors import GatewayError, MethodNotAllowed, RateLimited, UpstreamRejected
from gateway.ledger.base import Balance
from gateway.reply_headers import rate_headers
from gateway.types import Format

Headers = list[tuple[bytes, bytes]]


def status_of(error: GatewayError) -> int:
    """The HTTP status; a provider's own 4xx is passed on where it is one."""
    if isinstance(error, UpstreamRejected) and 400 <= error.upstream_status < 500:
        return error.upstream_status
    return error.status


def body_of(error: GatewayError, format_: Format | None, request_id: str) -> bytes:
    """The JSON body, OpenAI-shaped unless the client speaks Anthropic's Messages."""
    return orjson.dumps(_anthropic(error, request_id) if format_ is Format.MESSAGES else _openai(error))


def headers_of(error: GatewayError, request_id: str) -> Headers:
    """Retry advice that SDKs follow: `x-should-retry` always, `retry-after` where it is known."""
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"x-tollgate-request-id", request_id.encode()),
        (b"x-should-retry", b"true" if error.retryable else b"false"),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after_s)))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, RateLimited) and isinstance(error.balance, Balance):
        headers += rate_headers([error.balance], time.time())
    return headers


async def refuse(reply: Reply, error: GatewayError, format_: Format | None, request_id: str) -> None:
    """The error to the client, unless a reply has begun already."""
    if not reply.started:
        await reply.whole(status_of(error), headers_of(error, request_id), body_of(error, format_, request_id))


def _code(error: GatewayError) -> str:
    return (error.upstream_code if isinstance(error, UpstreamRejected) else None) or error.code


def _openai(error: GatewayError) -> dict[str, Any]:
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": _code(error)},
    }


def _anthropic(error: GatewayError, request_id: str) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": error.anthropic_type, "message": error.message, "code": _code(error), "param": error.param},
        "request_id": request_id,
    }

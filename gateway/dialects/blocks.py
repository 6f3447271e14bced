"""Pieces that more than one format writes alike, because compatible gateways took them over from Anthropic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.conversation import CacheMark, Reasoning
from gateway.dialects import fields
from gateway.dialects.fields import maybe

_MINUTES = {"5m": 5, "30m": 30, "1h": 60, "12h": 720}


def read_cache(value: object, path: str) -> CacheMark:
    """A cache mark with an optional `ttl`: 5m, 30m, 1h or 12h."""
    ttl = maybe(fields.mapping(value, path), "ttl", fields.string, path)
    return CacheMark(_MINUTES.get(ttl or "", 0))


def cache_control(cache: CacheMark | None) -> dict[str, Any]:
    """The field `cache_control`, with 5m, 1h for anything longer, or the provider's default; nothing without a mark."""
    if cache is None:
        return {}
    ttl = {"ttl": "5m" if cache.minutes <= 5 else "1h"} if cache.minutes else {}
    return {"cache_control": {"type": "ephemeral", **ttl}}


def thinking_block(thought: Reasoning) -> dict[str, str]:
    """A thought whole, so that it can be sent back to its provider."""
    if thought.encrypted:
        return {"type": "redacted_thinking", "data": thought.encrypted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def parsed_arguments(text: str) -> Mapping[str, Any] | None:
    """The object that a tool call's arguments are; None where they are none.  No text is no arguments."""
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None

"""Signatures of Gemini's thoughts, marked so that they come back to where they belong and to no one else.

Gemini signs parts of its answer and wants each signature back on the same part.  Clients of other formats know only
signed thoughts; so a signature travels as one, and says itself whose it is: gemini:PLACE:SIGNATURE, where the place is
`t` (the last text), `r` (the thought itself) or `cN` (the Nth tool call of the turn, from 0).
"""

from __future__ import annotations

from collections.abc import Mapping

MARK = "gemini:"
_MARK_BYTES = f'"{MARK}'.encode()


def sealed(place: str, signature: str) -> str:
    """The signature as clients carry it."""
    return f"{MARK}{place}:{signature}"


def unsealed(signature: str) -> tuple[str, str] | None:
    """(place, signature) of one that Gemini gave; None for anyone else's."""
    if not signature.startswith(MARK):
        return None
    place, _, own = signature[len(MARK) :].partition(":")
    return place, own


def in_bytes(raw: bytes) -> bool:
    """Whether a body may hold a signature of Gemini's; quick."""
    return _MARK_BYTES in raw


def without_gemini(messages: object) -> object:
    """An Anthropic client's messages without the thoughts that Gemini signed; whatever else as it came."""
    if not isinstance(messages, list):
        return messages
    return [_without(message) for message in messages]


def _without(message: object) -> object:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(content, list):
        return message
    return {**message, "content": [block for block in content if not _is_geminis(block)]}


def _is_geminis(block: object) -> bool:
    signature = block.get("signature") if isinstance(block, Mapping) else None
    return isinstance(signature, str) and unsealed(signature) is not None

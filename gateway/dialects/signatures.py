"""Signatures of Gemini's thoughts, marked so that they come back to where they belong and to no one else.

Gemini signs parts of its answer and wants each signature back on the same part.  Clients of other formats know only
signed thoughts; so a signature travels as one, and says itself whose it is: gemini:PLACE:SIGNATURE, where the place is
`t` (the last text), `r` (the thought itself) or `cN` (the Nth tool call of the turn, from 0).
"""

from __future__ import annotations

MARK = "gemini:"


def sealed(place: str, signature: str) -> str:
    """The signature as clients carry it."""
    return f"{MARK}{place}:{signature}"


def unsealed(signature: str) -> tuple[str, str] | None:
    """(place, signature) of one that Gemini gave; None for anyone else's."""
    if not signature.startswith(MARK):
        return None
    place, _, own = signature[len(MARK) :].partition(":")
    return place, own

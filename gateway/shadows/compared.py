"""How much two answers agree.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.answers.likeness import likeness
from gateway.plan import Said

CUT = frozenset({"length", "context_full", "paused"})


class Kind(StrEnum):
    """By what answers were compared."""

    EXACT = "exact"  # tool calls, JSON, final answers: the same or not
    LIKENESS = "likeness"  # the share of words in common: no label, only a sign of change
    JUDGE = "judge"  # what a model makes of one beside the other


@dataclass(frozen=True, slots=True)
class Compared:
    """`agreement`: 0 to 1."""

    agreement: float
    kind: Kind


def comparable(*answers: Said) -> bool:
    """Whether each can be read and is whole."""
    return all(said.finish and said.finish not in CUT for said in answers)


def compared(one: Said, other: Said) -> Compared:
    """By what they say; who refuses agrees only with who refuses."""
    if "refused" in (one.finish, other.finish):
        return Compared(float(one.finish == other.finish), Kind.EXACT)
    found = likeness(one, other)
    return Compared(found.score, Kind.EXACT if found.exact else Kind.LIKENESS)

"""Who reads a request with its answer and says how likely the answer is right: found by entry point, as policies are.

A package adds one by an entry point in the group `tollgate.verifiers` that names what makes it: called with the
directory of a trained artifact, it gives a `Verifier` or raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol, cast

from gateway.types import Request

VERIFIERS = "tollgate.verifiers"
TRAINED = "trained"
"""The one that `tollgate train --verifier` makes artifacts for."""


class Verifier(Protocol):
    """Quick (microseconds), pure, no I/O once it is made."""

    @property
    def bound(self) -> float:
        """P(right) from which an answer is good enough, as calibrated when it was trained."""
        ...

    def right(self, request: Request, answer: str) -> float | None:
        """P(right), 0 to 1; None: it is unlike all that was learned from, or there is nothing to read."""
        ...


def verifier(directory: str, kind: str = TRAINED) -> Verifier:
    """The verifier in `directory`.  Raises ValueError where there is none."""
    found = list(entry_points(group=VERIFIERS, name=kind))
    if not found:
        raise ValueError(f"no verifier {kind!r} is installed here")
    return cast("Callable[[str], Verifier]", found[0].load())(directory)

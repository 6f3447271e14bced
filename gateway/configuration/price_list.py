"""Price lists: the one that came with this installation, or a newer one in a file; and what changes between two.

A list is genai-prices' `data.json`, version 2.  In a file beside gateway.yaml it takes the place of the installed one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from genai_prices.types import Provider as PriceBook

Books: TypeAlias = "Mapping[str, PriceBook]"

FILE = "price-list.json"
LOST_MAX = 0
"""Models that a newer list may leave out."""
CHANGED_SHARE_MAX = 0.05
"""Of the models in both lists, those whose price may differ."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Between two lists: vendor/model by name."""

    lost: tuple[str, ...]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: int

    def objections(self) -> list[str]:
        """Why a newer list should not be taken unseen."""
        found = []
        if len(self.lost) > LOST_MAX:
            found.append(f"{len(self.lost)} models would be lost: {_some(self.lost)}")
        both = len(self.changed) + self.same
        if len(self.changed) > CHANGED_SHARE_MAX * both:
            found.append(f"{len(self.changed)} of {both} prices would change: {_some(self.changed)}")
        return found


def read(text: bytes | str) -> Books:
    """The list in `text`.  Raises ValueError for anything else."""
    from genai_prices.types import _providers_from_raw  # noqa: PLC0415 - as above; it has no public reader

    raw = json.loads(text)
    if not isinstance(raw, list) or not raw:
        raise ValueError("a price list is a JSON array of vendors")
    try:
        return {provider.id: provider for provider in _providers_from_raw(raw)}
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a list of vendors and models: {error!r}") from error


def books(path: Path | None) -> Books:
    """The list in the file at `path` where there is one, else the installed one.  Raises ValueError for no list."""
    if path is None or not path.is_file():
        return _installed()
    return _read(path, path.stat().st_mtime_ns)


def book_of(base_url: str) -> str:
    """The list's name for the vendor at `base_url`, by the list's own patterns; '' if it knows none."""
    for book in books(None).values() if base_url else ():
        if re.match(book.api_pattern, base_url):
            return book.id
    return ""


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> Changes:
    """Between the prices of two lists, by vendor/model."""
    common = before.keys() & after.keys()
    changed = sorted(name for name in common if before[name] != after[name])
    return Changes(
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(after.keys() - before.keys())),
        tuple(changed),
        len(common) - len(changed),
    )


@cache
def _installed() -> Books:
    from genai_prices.data import providers  # noqa: PLC0415 - 130 to 280 ms, for those who need it

    return {provider.id: provider for provider in providers}


@cache
def _read(path: Path, _changed: int) -> Books:
    return read(path.read_bytes())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

"""Remembers how many tokens a text is, without keeping the text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

V = TypeVar("V")


class Memo(Generic[V]):
    """At most `entries` values, the least recently used dropped first, roughly: two generations, and a hit in the old
    one moves to the young one.  Keyed by a hash that no client can aim (Python salts it) and the length.

    Reads and writes from several threads are safe: each is one dict operation, and a lost one is only counted again.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, entries: int) -> None:
        self._half = max(1, entries // 2)
        self._young: dict[Hashable, V] = {}
        self._old: dict[Hashable, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def of(self, content: str | bytes, compute: Callable[[], V]) -> V:
        """The value remembered for `content`, else `compute()`, remembered from now on."""
        key = (hash(content), len(content))
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            self._put(key, value := compute() if found is None else found)
            return value
        return found

    def knows(self, content: str | bytes) -> bool:
        """Whether `of` would not have to compute."""
        key = (hash(content), len(content))
        return key in self._young or key in self._old

    def _put(self, key: Hashable, value: V) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = value


class Tally(Memo[int]):
    """Token counts of texts in one encoding."""

    __slots__ = ("_count",)

    def __init__(self, entries: int, count: Callable[[str], int]) -> None:
        super().__init__(entries)
        self._count = count

    def total(self, texts: Iterable[str]) -> int:
        """Tokens of all the texts together; only those not seen before are counted."""
        young = self._young
        total = 0
        for text in texts:
            tokens = young.get((hash(text), len(text)))
            total += self.one(text) if tokens is None else tokens
        return total

    def one(self, text: str) -> int:
        """Tokens of one text."""
        return self.of(text, lambda: self._count(text))

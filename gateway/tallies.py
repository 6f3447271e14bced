"""What has been counted since Prometheus was last told: plain sums, told together when somebody looks.

Its own counters take several calls and a lock for one observation, and every request makes a dozen of them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Protocol

from prometheus_client import Counter, Histogram

from gateway.types import NANO, NanoUSD


class Untold(Protocol):
    """A sum that Prometheus does not know yet."""

    def tell(self) -> None:
        """Now it does."""
        ...


class Count:
    """A counter.  Stands in `untold` while it has something to tell."""

    __slots__ = ("_child", "_new", "_untold")

    def __init__(self, child: Counter, untold: list[Untold]) -> None:
        self._child, self._untold = child, untold
        self._new: float = 0

    def inc(self, amount: float = 1) -> None:
        if not self._new:
            self._untold.append(self)
        self._new += amount

    def tell(self) -> None:
        self._child.inc(self._new)
        self._new = 0


class Dollars:
    """A counter of dollars that follows an exact integer, so that float errors do not add up."""

    __slots__ = ("_child", "_shown", "_told", "_untold", "nano")

    def __init__(self, child: Counter, untold: list[Untold]) -> None:
        self._child, self._untold = child, untold
        self._shown = 0.0
        self._told = True
        self.nano: NanoUSD = 0

    def add(self, amount: NanoUSD) -> None:
        if self._told:
            self._told = False
            self._untold.append(self)
        self.nano += amount

    def tell(self) -> None:
        self._told = True
        step = self.nano / NANO - self._shown
        if step > 0:
            self._child.inc(step)
            self._shown += step


class Spread:
    """A histogram; `bounds` are those of its buckets, upward, without the last."""

    __slots__ = ("_bounds", "_child", "_counts", "_sum", "_told", "_untold")

    def __init__(self, child: Histogram, bounds: tuple[float, ...], untold: list[Untold]) -> None:
        self._child, self._bounds, self._untold = child, bounds, untold
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._told = True

    def observe(self, value: float) -> None:
        if self._told:
            self._told = False
            self._untold.append(self)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def tell(self) -> None:
        """The library has no way to add many at once but the values its histograms are made of."""
        self._told = True
        for bucket, count in zip(self._child._buckets, self._counts, strict=True):  # noqa: SLF001  # see above
            if count:
                bucket.inc(count)
        self._child._sum.inc(self._sum)  # noqa: SLF001  # see above
        self._counts = [0] * len(self._counts)
        self._sum = 0.0

"""What has been counted since Prometheus was last told: plain sums, told together when somebody looks.

Its own counters take several calls and a lock for one observation, and every request makes a dozen of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from prometheus_client import Counter, Histogram

from gateway.types import NANO, NanoUSD, Record

Child = TypeVar("Child")


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


@dataclass(frozen=True, slots=True)
class Timers:
    """One deployment's histograms, in the order they are declared."""

    request: Spread
    upstream: Spread
    first_token: Spread
    overhead: Spread
    estimate: Spread

    def observe(self, record: Record, went_in: int, overhead_s: float | None, upstream_s: float | None) -> None:
        """The times of a request, None if not measured, and how near the estimate was to the tokens that went in."""
        self.request.observe(record.latency_ms / 1000)
        if upstream_s is not None:
            self.upstream.observe(upstream_s)
        if record.first_token_ms:
            self.first_token.observe(record.first_token_ms / 1000)
        if overhead_s is not None:
            self.overhead.observe(overhead_s)
        if record.tokens_estimated and went_in and not record.estimated:
            self.estimate.observe(record.tokens_estimated / went_in)


class Found(dict[str, Child]):
    """What is counted in, by its last label: made by `find(*first, label)` when it is first asked for."""

    __slots__ = ("_find", "_first")

    def __init__(self, find: Callable[..., Child], *first: str) -> None:
        super().__init__()
        self._find, self._first = find, first

    def __missing__(self, label: str) -> Child:
        child = self[label] = self._find(*self._first, label)
        return child


@dataclass(frozen=True, slots=True)
class Served:
    """What the requests of one tenant on one route at one deployment and endpoint are counted in."""

    requests: Found[Count]  # by outcome
    tokens: Found[Count]  # by kind
    costs: Found[Dollars]  # by component
    route: Found[Dollars]  # the route's, by metric

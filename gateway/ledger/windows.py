"""A window at a moment: what its counter is called, when it began, when it resets.  Pure; unix milliseconds.

Calendar windows begin at local time in the window's zone, whatever daylight saving does to the day, so a reset is a new
name and never a job that can fail.  A rolling window is counted in slots; the oldest slot counts whole, so the window
is never looser than it says, and at most a sixtieth stricter.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from gateway.types import Every, Window

SLOTS = 60
FOREVER = 2**53 - 1

_FIXED_S = {Every.MINUTE: 60, Every.HOUR: 3600}


class Span(msgspec.Struct, frozen=True):
    """A window as it is at one moment.  `start <= now < end`; a rolling or total window has no end."""

    name: str
    start: int = 0
    end: int = FOREVER
    step: int = 0  # of a rolling window: the length of a slot
    length: int = 0  # of a rolling window: how far back it looks

    @property
    def resets(self) -> float | None:
        """Unix seconds when everything counted is forgotten; None: never, or bit by bit."""
        return None if self.end == FOREVER else self.end / 1000

    def slot(self, now_ms: int) -> int:
        """Where an amount of this moment is counted."""
        return now_ms // self.step if self.step else 0

    def first(self, now_ms: int) -> int:
        """The oldest slot that still counts."""
        return (now_ms - self.length) // self.step if self.step else 0

    def room_at(self, used: Iterable[tuple[int, int]], excess: int, now_ms: int) -> float | None:
        """Unix seconds when `excess` has left, of (slot, amount) used; None when the window never gives it back."""
        if not self.step:
            return self.resets
        for slot, amount in sorted(used):
            excess -= amount
            if excess <= 0:
                return ((slot + 1) * self.step + self.length) / 1000
        return (now_ms + self.length) / 1000


TOTAL = Span("total")


def span(window: Window, now_ms: int) -> Span:
    """The window that holds at `now_ms`."""
    if window.rolling_s:
        length = window.rolling_s * 1000
        return Span(f"rolling_{window.rolling_s}", step=-(-length // SLOTS), length=length)
    if window.every is Every.TOTAL:
        return TOTAL
    local = datetime.fromtimestamp(now_ms // 1000, window.zone)
    start_s, end_s = _fixed(window.every, local) if window.every in _FIXED_S else _calendar(window.every, local)
    return Span(f"{window.every}@{start_s}", start_s * 1000, end_s * 1000)


def _fixed(every: Every, local: datetime) -> tuple[int, int]:
    """Minutes and hours by the wall clock: zones differ from UTC by half and quarter hours too."""
    length = _FIXED_S[every]
    offset = local.utcoffset() or timedelta()
    shift = int(offset.total_seconds())
    start = (int(local.timestamp()) + shift) // length * length - shift
    return start, start + length


def _calendar(every: Every, local: datetime) -> tuple[int, int]:
    """From midnight to midnight.  A midnight that daylight saving skips is the moment of the change."""
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    match every:
        case Every.DAY:
            start, end = midnight, midnight + timedelta(days=1)
        case Every.WEEK:
            start = midnight - timedelta(days=midnight.weekday())
            end = start + timedelta(days=7)
        case Every.MONTH:
            start, end = _months(midnight, midnight.month, 1)
        case Every.QUARTER:
            start, end = _months(midnight, (midnight.month - 1) // 3 * 3 + 1, 3)
        case _:
            start, end = _months(midnight, 1, 12)
    return int(start.timestamp()), int(end.timestamp())


def _months(midnight: datetime, month: int, count: int) -> tuple[datetime, datetime]:
    start = midnight.replace(month=month, day=1)
    years, after = divmod(month - 1 + count, 12)
    return start, start.replace(year=start.year + years, month=after + 1)


class Spans:
    """`span` with a memory: a window is computed once and serves until it ends.

    Known by identity: a limit keeps its window, and a window's hash costs more than all the rest of this.
    """

    def __init__(self, size: int = 4096) -> None:
        self._known: dict[int, tuple[Window, Span]] = {}
        self._size = size

    def at(self, window: Window, now_ms: int) -> Span:
        """The window that holds at `now_ms`."""
        known = self._known.get(id(window))
        if known is not None and known[1].start <= now_ms < known[1].end:
            return known[1]
        if len(self._known) >= self._size:
            self._known.clear()
        fresh = span(window, now_ms)
        self._known[id(window)] = window, fresh  # the window is kept, so that nothing else can have its identity
        return fresh

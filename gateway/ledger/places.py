"""Where lines are counted: one counter for each account, unit and window, whatever the limits on it.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.ledger.base import Balance, Line, share_of
from gateway.ledger.windows import FOREVER, Span, Spans
from gateway.types import CONCURRENT, Account, Limit, Unit

AMOUNT_MAX = 2**53 - 1
"""The largest amount that is exact in Lua: 9,007,199 dollars.  More needs more room than any limit has."""

KEEP_MS = 16 * 86_400_000
"""A counter outlives its window: a hold may run past the end, and be presumed for a week before it is settled late."""

NOW = Span("now")


class Counter(msgspec.Struct, frozen=True):
    """Where a limit counts an account, as long as its window lasts."""

    limit: Limit
    key: str
    span: Span
    resets: float | None  # see Span.resets
    keep: int  # see Place.keep; of places in flight: 0
    share: str  # of the request: see base.share_of


class Counters:
    """The counters of one ledger, with a memory: each is named once and serves until its window ends.

    `stem` gives what stands before the keys of an account.  Limits are known by identity, as settings keep them.
    """

    def __init__(self, stem: Callable[[Account], str] | None = None, size: int = 8192) -> None:
        self._stem = stem
        self._spans = Spans()
        self._known: dict[tuple[int, Account], Counter] = {}
        self._size = size

    def of(self, line: Line, now_ms: int) -> Counter:
        """Where the line is counted at that moment."""
        limit, account = line.limit, line.account
        known = self._known.get((id(limit), account))
        if known is not None and known.span.start <= now_ms < known.span.end:
            return known
        if len(self._known) >= self._size:
            self._known.clear()
        fresh = self._counter(account, limit, now_ms)
        self._known[id(limit), account] = fresh  # it has the limit, so that nothing else can have its identity
        return fresh

    def _counter(self, account: Account, limit: Limit, now_ms: int) -> Counter:
        span = NOW if limit.unit is CONCURRENT else self._spans.at(limit.window, now_ms)
        key = counter_key(account, limit.unit, span)
        if self._stem is not None:
            key = self._stem(account) + key
        keep = 0 if span.end == FOREVER else span.end + KEEP_MS
        return Counter(limit, key, span, span.resets, keep, share_of(account))


class Place(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A counter, and what one reservation wants of it.  The Lua scripts read these fields by position."""

    key: str
    unit: str
    amount: int
    step: int  # ms; 0 unless rolling
    length: int  # ms; 0 unless rolling
    keep: int  # unix ms until which the counter is kept; 0: for ever, or until a rolling slot has left
    share: str = ""  # of the request: see base.share_of


class Take(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a hold has of a counter: enough to settle it without the lines."""

    key: str
    unit: str
    amount: int
    slot: int
    keep: int
    share: str = ""

    @property
    def presumed(self) -> int:
        """What is booked when nobody settles.  A place in flight is only given back."""
        return 0 if self.unit == CONCURRENT else self.amount


class Placed(msgspec.Struct, frozen=True):
    """Lines at one moment: what they want of distinct counters, and for how long this is so."""

    places: list[Place]
    of_line: list[tuple[Line, Counter, int]]  # the number of its place
    start: int
    end: int

    def takes(self, now_ms: int) -> list[Take]:
        """The places as a hold of this moment remembers them."""
        return [take(place, now_ms) for place in self.places]

    def balances(self, seen: Sequence[tuple[int, int]]) -> list[Balance]:
        """Of each line, from (spent, reserved) of each place."""
        found = []
        for line, counter, number in self.of_line:
            spent, reserved = seen[number]
            found.append(Balance(line.account, line.limit, spent, reserved, counter.resets))
        return found


def take(place: Place, now_ms: int) -> Take:
    """The place as a hold of this moment remembers it."""
    step = place.step
    if not step:
        return Take(place.key, place.unit, place.amount, 0, place.keep, place.share)
    slot = now_ms // step
    return Take(place.key, place.unit, place.amount, slot, (slot + 1) * step + place.length, place.share)


def place(lines: Sequence[Line], now_ms: int, counters: Counters) -> Placed:
    """Where each line is counted at this moment.  Raises ValueError for a negative amount."""
    numbers: dict[str, int] = {}
    places: list[Place] = []
    of_line: list[tuple[Line, Counter, int]] = []
    start, end = 0, FOREVER
    for line in lines:
        counter = counters.of(line, now_ms)
        key, span, amount = counter.key, counter.span, line.amount
        if not 0 <= amount <= AMOUNT_MAX:
            amount = _bounded(amount)
        if key not in numbers:
            numbers[key] = len(places)
            keep = now_ms + KEEP_MS if span is NOW else counter.keep
            places.append(Place(key, line.limit.unit, amount, span.step, span.length, keep, counter.share))
        elif places[numbers[key]].amount < amount:
            places[numbers[key]] = msgspec.structs.replace(places[numbers[key]], amount=amount)
        of_line.append((line, counter, numbers[key]))
        if span.start > start:
            start = span.start
        if span.end < end:
            end = span.end
    return Placed(places, of_line, start, end)


def counter_key(account: Account, unit: Unit, span: Span) -> str:
    """Distinct for distinct counters: only the last part is free text, those before cannot hold the divider."""
    return f"{unit}:{span.name}:{_escaped(account.kind)}~{_escaped(account.tenant)}~{account.id}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("~", "%7E") if "~" in text or "%" in text else text


def _bounded(amount: int) -> int:
    if amount < 0:
        raise ValueError(f"an amount of {amount} cannot be set aside")
    return min(AMOUNT_MAX, amount)

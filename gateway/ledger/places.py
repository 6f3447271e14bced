"""Where lines are counted: one counter for each account, unit and window, whatever the limits on it.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gateway.ledger.base import Balance, Line, share_of
from gateway.ledger.windows import FOREVER, Span, Spans
from gateway.types import Account, Action, Unit

AMOUNT_MAX = 2**53 - 1
"""The largest amount that is exact in Lua: 9,007,199 dollars.  More needs more room than any limit has."""

KEEP_MS = 16 * 86_400_000
"""A counter outlives its window: a hold may run past the end, and be presumed for a week before it is settled late."""

NOW = Span("now")


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
        return 0 if self.unit == Unit.CONCURRENT else self.amount


class Placed(msgspec.Struct, frozen=True):
    """Lines at one moment: the distinct counters, which of them each line uses, and for how long this is so."""

    places: list[Place]
    of_line: list[int]
    spans: list[Span]  # of each line
    start: int
    end: int

    def takes(self, now_ms: int) -> list[Take]:
        """The places as a hold of this moment remembers them."""
        return [take(place, now_ms) for place in self.places]

    def balances(self, lines: Sequence[Line], seen: Sequence[tuple[int, int]]) -> list[Balance]:
        """Of each line, from (spent, reserved) of each place."""
        return [
            Balance(line.account, line.limit, *seen[index], span.resets)
            for line, index, span in zip(lines, self.of_line, self.spans, strict=True)
        ]


def take(place: Place, now_ms: int) -> Take:
    """The place as a hold of this moment remembers it."""
    if not place.step:
        return Take(place.key, place.unit, place.amount, 0, place.keep, place.share)
    slot = now_ms // place.step
    return Take(place.key, place.unit, place.amount, slot, (slot + 1) * place.step + place.length, place.share)


def place(lines: Sequence[Line], now_ms: int, spans: Spans, prefix: Callable[[Account], str] | None = None) -> Placed:
    """Where each line is counted at this moment.  Raises ValueError for a negative amount."""
    index: dict[str, int] = {}
    places: list[Place] = []
    of_line: list[int] = []
    seen: list[Span] = []
    start, end = 0, FOREVER
    for line in lines:
        unit = line.limit.unit
        span = NOW if unit is Unit.CONCURRENT else spans.at(line.limit.window, now_ms)
        key = counter_key(line.account, unit, span)
        if prefix is not None:
            key = prefix(line.account) + key
        amount = _bounded(line.amount)
        at = index.get(key)
        if at is None:
            at = index[key] = len(places)
            share = share_of(line.account)
            places.append(Place(key, unit, amount, span.step, span.length, _keep(span, now_ms), share))
        elif places[at].amount < amount:
            places[at] = msgspec.structs.replace(places[at], amount=amount)
        of_line.append(at)
        seen.append(span)
        start, end = max(start, span.start), min(end, span.end)
    return Placed(places, of_line, seen, start, end)


def counter_key(account: Account, unit: Unit, span: Span) -> str:
    """Distinct for distinct counters: only the last part is free text, those before cannot hold the divider."""
    return f"{unit}:{span.name}:{_escaped(account.kind)}~{_escaped(account.tenant)}~{account.id}"


def denies(line: Line) -> bool:
    """Whether the line can be refused at all.  What costs nothing never is."""
    return line.limit.action is Action.DENY and line.amount > 0


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("~", "%7E") if "~" in text or "%" in text else text


def _keep(span: Span, now_ms: int) -> int:
    if span is NOW:
        return now_ms + KEEP_MS
    return 0 if span.end == FOREVER else span.end + KEEP_MS


def _bounded(amount: int) -> int:
    if amount < 0:
        raise ValueError(f"an amount of {amount} cannot be set aside")
    return min(amount, AMOUNT_MAX)

"""Several keys of one provider: which is used next, and which rest.  Pure: times are arguments (seconds, monotonic).

Keys take turns by weight.  One that has used up what it may in a minute waits, one that was refused rests; both are
left out meanwhile.  Limits are kept where requests enter: those already on their way may pass them by a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.provider import ProviderKey

MINUTE_S = 60.0
DENIED_S = 30.0
"""A key that was refused, or whose value is not to be had, rests so long ..."""
LIMITED_S = 5.0
"""... and one that has met its limits so long, where the provider does not say."""
REST_MAX_S = 120.0


@dataclass(slots=True)
class Minute:
    """What was used in the last 60 seconds, about: the minute before this one fades out evenly."""

    limit: int | None
    began: float = 0.0
    used: int = 0
    before: int = 0

    def add(self, now: float, amount: int) -> None:
        """Counts what is used now."""
        self._turn(now)
        self.used += amount

    def wait_s(self, now: float) -> float:
        """Until there is room; 0 if there is.  A single request may be larger than what is left."""
        if self.limit is None:
            return 0.0
        self._turn(now)
        gone = (now - self.began) / MINUTE_S
        if self.used + self.before * (1 - gone) < self.limit:
            return 0.0
        if self.used < self.limit:
            return MINUTE_S * _until_below(self.before, self.limit - self.used) - (now - self.began)
        return MINUTE_S * (1 + _until_below(self.used, self.limit)) - (now - self.began)

    def _turn(self, now: float) -> None:
        minutes = int((now - self.began) // MINUTE_S)
        if minutes > 0:
            self.before = self.used if minutes == 1 else 0
            self.used = 0
            self.began += minutes * MINUTE_S
        if not self.used and not self.before:
            self.began = now  # it begins with the first use


def _until_below(fading: int, room: int) -> float:
    """Share of a minute after which what fades is less than `room`, a little later rather than earlier."""
    return min(1.0, max(0.0, 1 - room / fading) + 0.001) if fading else 0.0


@dataclass(slots=True)
class Slot:
    """One key, and how it fares."""

    key: ProviderKey
    requests: Minute = field(init=False)
    tokens: Minute = field(init=False)
    rests_until: float = 0.0
    limited: bool = False  # it rests for having met its limits, and not for having been refused
    turn: float = 0.0

    def __post_init__(self) -> None:
        self.requests = Minute(self.key.requests_per_minute)
        self.tokens = Minute(self.key.tokens_per_minute)

    def wait_s(self, now: float) -> float:
        """Until it may be used; 0 if it may."""
        return max(self.rests_until - now, self.requests.wait_s(now), self.tokens.wait_s(now), 0.0)

    def rest(self, now: float, seconds: float, *, limited: bool) -> None:
        """It is not used for so long."""
        self.rests_until, self.limited = now + min(seconds, REST_MAX_S), limited


class Slots:
    """All keys of one provider."""

    def __init__(self, keys: Sequence[ProviderKey]) -> None:
        self._slots = [Slot(key) for key in keys]

    def wait_s(self, now: float) -> float:
        """Until one of them may be used; 0 if one may."""
        return min(slot.wait_s(now) for slot in self._slots)

    def limited(self) -> bool:
        """Whether any has met its limits, so that asking later is of use."""
        return any(slot.limited for slot in self._slots)

    def take(self, now: float, tokens: int) -> Slot | None:
        """The next one that does not rest, one with room if there is one; None: all rest."""
        awake = [slot for slot in self._slots if slot.rests_until <= now]
        found = [slot for slot in awake if slot.wait_s(now) <= 0] or awake
        if not found:
            return None
        for slot in found:
            slot.turn += slot.key.weight
        chosen = max(found, key=lambda slot: slot.turn)
        chosen.turn -= sum(slot.key.weight for slot in found)
        chosen.limited = False
        chosen.requests.add(now, 1)
        chosen.tokens.add(now, tokens)
        return chosen

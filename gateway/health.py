"""How each deployment has fared of late.  Pure: values in, values out, the time is an argument (seconds, monotonic).

A circuit opens when half of the recent calls failed (at least `FAILURES_MIN` of them), or at once for as long as a
provider's retry-after says.  After `cooldown_s` one call at a time may probe; one success closes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.habits import Habits
from gateway.plan import Stats

FAILURES_MIN = 5
ERROR_RATE_OPEN = 0.5
COOLDOWN_S = 5.0
COOLDOWN_MAX_S = 120.0
HALF_LIFE_S = 30.0  # how long the past weighs in the error rate
WEIGHT = 0.2  # of the newest latency in its moving average


@dataclass(slots=True)
class Condition:
    """One deployment's recent past."""

    calls: float = 0.0  # decayed counts
    failures: float = 0.0
    updated: float = 0.0
    open_until: float = 0.0
    cooldown_s: float = COOLDOWN_S
    open: bool = False
    probing_until: float = 0.0
    inflight: int = 0
    exhausted_until: float = 0.0  # the provider's own limits have nothing left; 0: they have, as far as is known
    look_at: float = 0.0  # when its limits are looked at again
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    output_mean: float | None = None

    @property
    def untroubled(self) -> bool:
        """Whether a call may be sent, whatever the time."""
        return not self.open and not self.exhausted_until

    def healthy(self, now: float) -> bool:
        """Whether a call may be sent: its limits have room, and it is closed, or open long enough and nobody probes."""
        if now < self.exhausted_until:
            return False
        self.exhausted_until = 0.0
        return not self.open or (now >= self.open_until and now >= self.probing_until)

    def exhausted(self, now: float, seconds: float) -> None:
        """The provider says that nothing is left of one of its limits for so long."""
        self.exhausted_until = now + min(seconds, COOLDOWN_MAX_S)

    def began(self, now: float) -> None:
        """A call was sent; on an open circuit it is the probe."""
        self.inflight += 1
        if self.open:
            self.probing_until = now + self.cooldown_s

    def ended(self) -> None:
        """The call is over, however it ended."""
        self.inflight -= 1

    def succeeded(self, now: float, first_token_ms: float, output_tokens: int, output_s: float) -> None:
        """A complete answer: its latency and speed are learned, and an open circuit closes."""
        self._decay(now)
        self.calls += 1
        if self.open:
            self.open, self.cooldown_s, self.failures, self.calls = False, COOLDOWN_S, 0.0, 1.0
        self.first_token_ms = _blend(self.first_token_ms, first_token_ms)
        if output_tokens:
            self.output_mean = _blend(self.output_mean, output_tokens)
            if output_s > 0:
                self.tokens_per_second = _blend(self.tokens_per_second, output_tokens / output_s)

    def failed(self, now: float, retry_after_s: float | None = None) -> None:
        """A failure that is the provider's; `retry_after_s` is its own word on when to come back."""
        self._decay(now)
        self.calls += 1
        self.failures += 1
        if self.open:
            self.cooldown_s = min(self.cooldown_s * 2, COOLDOWN_MAX_S)
            self._trip(now, self.cooldown_s)
        elif self.failures >= FAILURES_MIN and self.failures >= ERROR_RATE_OPEN * self.calls:
            self._trip(now, self.cooldown_s)
        if retry_after_s:
            self._trip(now, max(self.open_until - now, min(retry_after_s, COOLDOWN_MAX_S)))

    def stats(self) -> Stats:
        """What policies may know."""
        rate = self.failures / self.calls if self.calls else 0.0
        return Stats(self.first_token_ms, self.tokens_per_second, rate, self.output_mean)

    def _trip(self, now: float, seconds: float) -> None:
        self.open, self.open_until, self.probing_until = True, now + seconds, 0.0

    def _decay(self, now: float) -> None:
        if self.updated and now > self.updated:
            keep = 0.5 ** ((now - self.updated) / HALF_LIFE_S)
            self.calls *= keep
            self.failures *= keep
        self.updated = now


@dataclass(slots=True)
class Health:
    """The condition of every deployment, made on first sight."""

    conditions: dict[str, Condition] = field(default_factory=dict)
    habits: Habits = field(default_factory=Habits)

    def of(self, deployment: str) -> Condition:
        """The condition of one deployment."""
        condition = self.conditions.get(deployment)
        if condition is None:
            condition = self.conditions[deployment] = Condition()
        return condition

    def stats(self) -> Mapping[str, Stats]:
        """What policies may know of every deployment seen so far."""
        return {deployment: condition.stats() for deployment, condition in self.conditions.items()}


def _blend(mean: float | None, value: float) -> float:
    return value if mean is None else mean + WEIGHT * (value - mean)

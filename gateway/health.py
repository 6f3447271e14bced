"""How each deployment has fared of late.  Pure: values in, values out, the time is an argument (seconds, monotonic).

A circuit opens when `IN_A_ROW` calls failed one after the other, when half of the recent calls did, or at once for as
long as a provider's retry-after says.  After its cooldown one call at a time may probe; one success closes it, and a
deployment that has recovered takes its full load only after `RAMP_S`.  One that has become slow, or silent while
it should have answered many, is asked last and not shut out: a slow answer is better than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.habits import Habits
from gateway.plan import Stats

IN_A_ROW = 5
FAILURES_MIN = 3.0
"""Decayed: five failures in a row over a quiet day say nothing."""
ERROR_RATE_OPEN = 0.5
COOLDOWN_S = 5.0
COOLDOWN_MAX_S = 120.0
RAMP_S = 10.0
RAMP_FROM = 0.1  # of the full load, just after recovery
HALF_LIFE_S = 10.0  # how long the past weighs in rates
WEIGHT = 0.2  # of the newest figure in a moving average
SLOW_TIMES = 5.0
"""A first token that takes so many times what is usual is slow ..."""
SLOW_MIN_MS = 5_000.0
"""... unless it is here within this: prompts differ."""
SLOW_WEIGHT = 0.01  # slow becomes usual, slowly
SILENT_CALLS = 10
"""Sent since the last answer: fewer may just be long ..."""
SILENT_S = 1.0
"""... and silence shorter than this is none,"""
SILENT_TIMES = 20.0
"""nor that which lasts less than so many of the usual gaps between two answers, or a quarter as many usual answers."""
RETRY_SHARE = 0.1
"""Retries on a deployment, of its recent requests: more of them turn a failure into a storm."""
RETRIES_FREE = 2.0
"""Decayed: where there is little traffic a request may still be tried again."""
LIMITS_LOOK_S = 0.05
"""A provider's own limits are known to plans before it has to refuse, without reading every reply of many for them."""


@dataclass(slots=True)
class Recent:
    """Counts that fade: after `HALF_LIFE_S` a call weighs half."""

    calls: float = 0.0
    failures: float = 0.0
    slow: float = 0.0
    retries: float = 0.0
    updated: float = 0.0

    def fade(self, now: float) -> None:
        """Brings the counts to the present."""
        if self.updated and now > self.updated:
            keep = 0.5 ** ((now - self.updated) / HALF_LIFE_S)
            self.calls *= keep
            self.failures *= keep
            self.slow *= keep
            self.retries *= keep
        self.updated = now


@dataclass(slots=True)
class Circuit:
    """Closed, open until a time, half open after it (one probe), closed and ramping.  Times are the caller's clock."""

    recent: Recent = field(default_factory=Recent)
    in_a_row: int = 0  # failures
    open: bool = False
    until: float = 0.0
    cooldown_s: float = COOLDOWN_S
    probing_until: float = 0.0
    closed_at: float | None = None  # when it last recovered

    def admits(self, now: float) -> bool:
        """Whether a call may be sent: closed, or open long enough and nobody probes."""
        return not self.open or (now >= self.until and now >= self.probing_until)

    def wait_s(self, now: float) -> float:
        """Until a call may be sent; 0 if it may."""
        return max(0.0, max(self.until, self.probing_until) - now) if self.open else 0.0

    def slow(self, now: float) -> bool:
        """Whether half of the recent calls were slow."""
        recent = self.recent
        recent.fade(now)
        return recent.slow >= FAILURES_MIN and recent.slow >= ERROR_RATE_OPEN * recent.calls

    def share(self, now: float) -> float:
        """Of the full load, what it may take: 1 but for a while after a recovery."""
        if self.closed_at is None:
            return 1.0
        share = RAMP_FROM + (1 - RAMP_FROM) * (now - self.closed_at) / RAMP_S
        if share >= 1:
            self.closed_at = None
            return 1.0
        return share

    def began(self, now: float) -> None:
        """A call was sent; on an open circuit it is the probe."""
        if self.open:
            self.probing_until = now + self.cooldown_s

    def answered(self, now: float, *, slow: bool = False) -> None:
        """The deployment did its work."""
        recent = self.recent
        recent.fade(now)
        recent.calls += 1
        recent.slow += slow
        self.in_a_row = 0
        if self.open and now >= self.until:  # an answer to a call of before it opened says nothing
            self.open, self.cooldown_s, self.closed_at = False, COOLDOWN_S, now
            recent.calls, recent.failures = 1.0, 0.0

    def failed(self, now: float, retry_after_s: float | None = None) -> None:
        """A failure that is the provider's; `retry_after_s` is its own word on when to come back."""
        recent = self.recent
        recent.fade(now)
        recent.calls += 1
        recent.failures += 1
        self.in_a_row += 1
        if self.open:
            if now >= self.until:  # the probe
                self.cooldown_s = min(self.cooldown_s * 2, COOLDOWN_MAX_S)
                self._trip(now, self.cooldown_s)
        elif self._failing():
            self._trip(now, self.cooldown_s)
        if retry_after_s:
            self._trip(now, max(self.until - now, min(retry_after_s, COOLDOWN_MAX_S)))

    def heard(self, now: float, open_s: float) -> None:
        """Another worker has opened its own for `open_s` more seconds."""
        if open_s > 0 and now + open_s > self.until:
            self._trip(now, min(open_s, COOLDOWN_MAX_S))

    def _failing(self) -> bool:
        recent = self.recent
        if recent.failures < FAILURES_MIN:
            return False
        often = recent.failures >= IN_A_ROW and recent.failures >= ERROR_RATE_OPEN * recent.calls
        return often or self.in_a_row >= IN_A_ROW

    def _trip(self, now: float, seconds: float) -> None:
        self.open, self.until, self.probing_until, self.closed_at = True, now + seconds, 0.0, None


@dataclass(slots=True)
class Quota:
    """One of the provider's own limits: what a reply said was left, less what was sent there since."""

    kind: str  # requests, tokens, input-tokens, output-tokens
    left: float
    until: float  # all of it is there again

    def need(self, ins: int, outs: int) -> int:
        """What a call of so many tokens in and out takes of it."""
        if self.kind == "requests":
            return 1
        return (0 if self.kind == "output-tokens" else ins) + (0 if self.kind == "input-tokens" else outs)


@dataclass(slots=True)
class Condition:
    """One deployment's recent past."""

    circuit: Circuit = field(default_factory=Circuit)
    inflight: int = 0
    quotas: list[Quota] = field(default_factory=list)
    _look_at: float = 0.0  # when its limits are looked at again
    asked: int = 0  # calls since the last answer
    answered_at: float | None = None
    gap_s: float = 0.0  # between two answers
    first_token_ms: float | None = None
    usual_ms: float | None = None  # to the first token of a stream
    tokens_per_second: float | None = None
    output_mean: float | None = None

    @property
    def open(self) -> bool:
        """Whether nothing is sent there."""
        return self.circuit.open

    @property
    def untroubled(self) -> bool:
        """Whether a call may be sent, whatever the time."""
        circuit = self.circuit
        return not (circuit.open or self.quotas or circuit.recent.slow or self.asked >= SILENT_CALLS)

    def healthy(self, now: float, ins: int = 0, outs: int = 0) -> bool:
        """Whether it is as good as the others for a call of so many tokens in and out.

        Its limits have room for them, it may be called, and it answers as usual.
        """
        if self.quotas and not self.room(now, ins, outs):
            return False
        return self.circuit.admits(now) and not self.circuit.slow(now) and not self.silent(now)

    def room(self, now: float, ins: int, outs: int) -> bool:
        """Whether the provider's own limits, as far as they are known, have room for a call of so many tokens."""
        self.quotas = [quota for quota in self.quotas if now < quota.until]
        return all(quota.left >= quota.need(ins, outs) for quota in self.quotas)

    def silent(self, now: float) -> bool:
        """Whether nothing comes back although it should have answered several times by now."""
        if self.asked < SILENT_CALLS or self.inflight < 1 or self.answered_at is None:
            return False
        usual_s = max(self.gap_s, (self.first_token_ms or 0.0) / 4000)
        return now - self.answered_at > max(SILENT_S, SILENT_TIMES * usual_s)

    def looks(self, now: float) -> bool:
        """Whether its limits are read from the reply that is here: not from each of many."""
        if now < self._look_at:
            return False
        self._look_at = now + LIMITS_LOOK_S
        return True

    def told(self, now: float, limits: Iterable[tuple[str, float, float]]) -> None:
        """The provider says what is left of its limits: see `dialects.retry_after.quotas`."""
        found = [Quota(kind, left, now + min(wait_s, COOLDOWN_MAX_S)) for kind, left, wait_s in limits if wait_s > 0]
        self.quotas = found or self.quotas

    def sent(self, ins: int, outs: int) -> None:
        """A call of so many tokens in and out takes of the provider's limits."""
        for quota in self.quotas:
            quota.left -= quota.need(ins, outs)

    def began(self, now: float) -> None:
        """A call was sent."""
        self.inflight += 1
        self.asked += 1
        self.circuit.began(now)

    def ended(self) -> None:
        """The call is over, however it ended."""
        self.inflight -= 1

    def succeeded(
        self, now: float, first_token_ms: float, output_tokens: int, output_s: float, *, stream: bool = True
    ) -> None:
        """A complete answer: its latency and speed are learned, and an open circuit closes."""
        if self.answered_at is not None:
            self.gap_s = _blend(self.gap_s, now - self.answered_at)
        self.answered_at, self.asked = now, 0
        slow = False
        if stream:
            slow = self.usual_ms is not None and first_token_ms > max(SLOW_MIN_MS, SLOW_TIMES * self.usual_ms)
            self.usual_ms = _blend(self.usual_ms, first_token_ms, SLOW_WEIGHT if slow else WEIGHT)
        self.circuit.answered(now, slow=slow)
        self.first_token_ms = _blend(self.first_token_ms, first_token_ms)
        if output_tokens:
            self.output_mean = _blend(self.output_mean, output_tokens)
            if output_s > 0:
                self.tokens_per_second = _blend(self.tokens_per_second, output_tokens / output_s)

    def failed(self, now: float, retry_after_s: float | None = None) -> None:
        """A failure that is the provider's; `retry_after_s` is its own word on when to come back."""
        self.circuit.failed(now, retry_after_s)
        if self.circuit.open:
            self.asked = 0  # the circuit knows; who probes it shall not find it silent

    def retries(self, now: float) -> bool:
        """Whether one more retry stays within the budget; if so it is counted."""
        recent = self.circuit.recent
        recent.fade(now)
        if recent.retries + 1 > RETRIES_FREE + RETRY_SHARE * recent.calls:
            return False
        recent.retries += 1
        return True

    def stats(self) -> Stats:
        """What policies may know."""
        recent = self.circuit.recent
        rate = recent.failures / recent.calls if recent.calls else 0.0
        return Stats(self.first_token_ms, self.tokens_per_second, rate, self.output_mean)


class Known(Mapping[str, Stats]):
    """The figures of every deployment seen so far, made for who looks: few policies do."""

    __slots__ = ("_conditions",)

    def __init__(self, conditions: Mapping[str, Condition]) -> None:
        self._conditions = conditions

    def __getitem__(self, deployment: str) -> Stats:
        return self._conditions[deployment].stats()

    def __iter__(self) -> Iterator[str]:
        return iter(self._conditions)

    def __len__(self) -> int:
        return len(self._conditions)


@dataclass(slots=True)
class Health:
    """The condition of every deployment, made on first sight."""

    conditions: dict[str, Condition] = field(default_factory=dict)
    habits: Habits = field(default_factory=Habits)
    _known: Known = field(init=False)

    def __post_init__(self) -> None:
        self._known = Known(self.conditions)

    def of(self, deployment: str) -> Condition:
        """The condition of one deployment."""
        condition = self.conditions.get(deployment)
        if condition is None:
            condition = self.conditions[deployment] = Condition()
        return condition

    def stats(self) -> Mapping[str, Stats]:
        """What policies may know of every deployment seen so far."""
        return self._known

    def opened(self, now: float) -> dict[str, float]:
        """For how many more seconds each open circuit lets nothing through."""
        left = {name: condition.circuit.until - now for name, condition in self.conditions.items() if condition.open}
        return {name: seconds for name, seconds in left.items() if seconds > 0}

    def heard(self, now: float, opened: Mapping[str, float]) -> None:
        """What other workers have found."""
        for deployment, seconds in opened.items():
            self.of(deployment).circuit.heard(now, seconds)


def _blend(mean: float | None, value: float, weight: float = WEIGHT) -> float:
    return value if mean is None else mean + weight * (value - mean)

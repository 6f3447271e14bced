"""The same model at several providers: which one serves best for its price, now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.plan import Context, Plan, Stats, Step
from gateway.types import Request

NOTHING_KNOWN = Stats()


@dataclass(frozen=True, slots=True)
class Arbitrage:
    """Leaves the candidates that keep these bounds, ordered by price and time to the first token.

    `ttft_ms_max`            recent time to the first token, milliseconds.
    `tokens_per_second_min`  recent speed of the answer.
    `error_rate_max`         recent share of calls that failed, 0 to 1.
    `regions`                where it may run; a candidate elsewhere, or nobody knows where, is dropped, always.
    `price`, `latency`       weights: a candidate's score is price x (its expected cost / the least) + latency x (its
                             time to the first token / the least); the lowest is first.
    `strict`                 whether candidates beyond a bound are dropped though none would be left.

    What traffic has not measured breaks no bound and counts as the quickest, so that every candidate is tried.
    """

    ttft_ms_max: float | None = None
    tokens_per_second_min: float | None = None
    error_rate_max: float | None = None
    regions: Sequence[str] = ()
    price: float = 1.0
    latency: float = 0.0
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("ttft_ms_max", "tokens_per_second_min"):
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                raise ValueError(f"arbitrage: {name} must be above 0, not {bound!r}")
        if self.error_rate_max is not None and not 0 <= self.error_rate_max <= 1:
            raise ValueError(f"arbitrage: error_rate_max must be from 0 to 1, not {self.error_rate_max!r}")
        if isinstance(self.regions, str):
            raise ValueError("arbitrage: regions must be a list of regions")  # noqa: TRY004 - as every wrong option
        if self.price < 0 or self.latency < 0 or not self.price + self.latency > 0:
            raise ValueError("arbitrage: price and latency must be 0 or more, one of them above 0")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The candidates within bounds, best score first."""
        if self.regions:
            plan = plan.only(
                lambda step: step.deployment.region in self.regions, "is outside the regions it may run in"
            )
        stats = {step.deployment.id: context.stats.get(step.deployment.id, NOTHING_KNOWN) for step in plan.steps}
        broken = {id_: why for id_, each in stats.items() if (why := self._breaks(each))}
        reason = "arbitrage"
        if broken and (self.strict or len(broken) < len(stats)):
            for id_, why in broken.items():
                plan = plan.only(lambda step, id_=id_: step.deployment.id != id_, why)  # type: ignore[misc]  # a default binds it
        elif broken:
            reason = "arbitrage: no candidate keeps the bounds"
        if not plan.steps:
            return plan
        return self._ordered(plan, stats).because(reason)

    def _breaks(self, stats: Stats) -> str:
        first, speed = stats.first_token_ms, stats.tokens_per_second
        if self.ttft_ms_max is not None and first is not None and first > self.ttft_ms_max:
            return f"takes {first:.0f} ms to its first token, more than {self.ttft_ms_max:g}"
        if self.tokens_per_second_min is not None and speed is not None and speed < self.tokens_per_second_min:
            return f"gives {speed:.1f} tokens per second, less than {self.tokens_per_second_min:g}"
        if self.error_rate_max is not None and stats.error_rate > self.error_rate_max:
            return f"fails {stats.error_rate:.0%} of calls, more than {self.error_rate_max:.0%}"
        return ""

    def _ordered(self, plan: Plan, stats: dict[str, Stats]) -> Plan:
        costs = [step.expected_cost for step in plan.steps if step.expected_cost is not None]
        cheapest = max(1, min(costs, default=1))
        times = [first for step in plan.steps if (first := stats[step.deployment.id].first_token_ms)]
        quickest = min(times, default=1.0)

        def score(step: Step) -> tuple[bool, bool, float]:
            cost = step.expected_cost
            first = stats[step.deployment.id].first_token_ms or quickest
            worth = self.price * (cost or 0) / cheapest + self.latency * first / quickest
            return (not step.healthy, cost is None, worth)

        return plan.sorted(score)

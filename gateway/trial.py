"""What was paid for and is not the client's answer: answers that were tried, and attempts that gave nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.dialects.base import Decoder
from gateway.ledger.base import Spent
from gateway.plan import Said, Step
from gateway.types import Bucket, Cost, NanoUSD, Usage


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """An answer, or an opinion of one, that was paid for and not sent."""

    step: Step
    decoder: Decoder | None
    said: Said | None  # None: too late, or not to be read
    data: bytes = field(repr=False)
    usage: Usage
    cost: Cost

    @property
    def amount(self) -> NanoUSD:
        """What it cost; where that is unknown the most it can have."""
        return (self.step.worst_cost or 0) if self.cost.total is None else self.cost.total

    @property
    def spent(self) -> Spent:
        """The same beside its tokens."""
        return Spent(self.amount, 1, self.usage.input_tokens, self.usage.output_tokens)


def with_waste(cost: Cost, wasted: NanoUSD, trials: list[Trial]) -> Mapping[str, NanoUSD]:
    """The components of all that is owed; what nobody can use counts as input."""
    if not wasted and not trials:
        return cost.components
    components = dict(cost.components)
    for trial in trials:
        for name, amount in trial.cost.components.items():
            components[name] = components.get(name, 0) + amount
    if wasted and cost.total is not None:
        components[Bucket.INPUT] = components.get(Bucket.INPUT, 0) + wasted
    return components

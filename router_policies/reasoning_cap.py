"""How hard a model may think, by how hard the request is."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.plan import EFFORTS, Context, Plan, Step, asked_effort
from gateway.types import Capability, Request

LEVELS = ("easy", "medium", "hard")
STRONGEST = len(EFFORTS)


@dataclass(frozen=True, slots=True)
class ReasoningCap:
    """Asks for at most this effort: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`; null leaves it alone.

    `easy`, `medium`, `hard`   by what a policy before it (`difficulty`) says of the request.
    `default`     where none says anything.
    `tokens_max`  the most tokens of an answer that is asked to think, reasoning included: sent upstream, so it is hard.
    `shrink_from` once this share of the caller's fullest `degrade` budget is gone, one word less than otherwise.

    A client that asks for less gets less; one that asks for nothing gets the cap instead of the model's own default.
    Only candidates with the capability `reasoning` are changed; each dialect says the effort in its provider's words.
    """

    easy: str | None = "none"
    medium: str | None = "low"
    hard: str | None = "medium"
    default: str | None = None
    tokens_max: int | None = None
    shrink_from: float = 0.8

    def __post_init__(self) -> None:
        for name in (*LEVELS, "default"):
            effort = getattr(self, name)
            if effort is not None and effort not in EFFORTS:
                raise ValueError(f"reasoning_cap: {name} must be one of {', '.join(EFFORTS)}, not {effort!r}")
        if self.tokens_max is not None and self.tokens_max < 1:
            raise ValueError("reasoning_cap: tokens_max must be 1 token or more")
        if not self.shrink_from > 0:
            raise ValueError("reasoning_cap: shrink_from must be a share above 0; above 1 means never")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:
        """The same steps, none asked to think harder than it may."""
        cap: str | None = getattr(self, plan.level) if plan.level in LEVELS else self.default
        if cap is None:
            return plan
        if context.fill >= self.shrink_from:
            cap = EFFORTS[max(0, EFFORTS.index(cap) - 1)]
        asked = asked_effort(request.body)
        capped = plan.each(lambda step: self._capped(step, asked, cap))
        if capped.steps == plan.steps:
            return plan
        return capped.because(f"reasoning capped at {cap}{f': {plan.level}' if plan.level else ''}")

    def _capped(self, step: Step, asked: str | None, cap: str) -> Step:
        if Capability.REASONING not in step.deployment.capabilities:
            return step
        said = asked if step.effort is None else step.effort
        strength = EFFORTS.index(said) if said in EFFORTS else STRONGEST
        calmer = step if strength <= EFFORTS.index(cap) else step.thinking(cap)
        thinks = (calmer.effort or said) != "none"
        return calmer.capped(self.tokens_max) if thinks and self.tokens_max is not None else calmer

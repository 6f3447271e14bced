"""A bound on what an answer can cost."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.plan import Context, Plan
from gateway.types import Request

ASKED = ("max_completion_tokens", "max_tokens")
"""Where a chat or messages request says how long its answer may be."""


@dataclass(frozen=True, slots=True)
class OutputCap:
    """Caps the tokens of an answer, reasoning included.  The cap is what is sent upstream, so costs are bounds.

    `default` holds for a request that names no maximum; `max` holds for every request.  A cap is never raised: what the
    client asked for, or the deployment allows, stays where it is lower.
    """

    default: int | None = None
    max: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("default", self.default), ("max", self.max)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"output_cap: {name} must be a whole number of tokens, 1 or more, not {value!r}")
        if self.default is None and self.max is None:
            raise ValueError("output_cap: give default (for requests without a maximum), max (for all), or both")
        if self.default is not None and self.max is not None and self.default > self.max:
            raise ValueError(f"output_cap: default ({self.default}) must not be above max ({self.max})")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps, none with a higher cap, priced anew."""
        body = request.body
        asked = [name for name in ASKED if body.get(name) is not None]
        cap = self.max if asked or self.default is None else self.default
        if cap is None or not [step for step in plan.steps if step.output_cap > cap]:
            return plan
        return plan.each(lambda step: step.capped(cap)).because(f"output capped at {cap}")

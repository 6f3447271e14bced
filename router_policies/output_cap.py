"""A bound on what an answer can cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.plan import Context, Plan
from gateway.types import Request


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
        cap = self.max if self.default is None or _names_a_maximum(request.body) else self.default
        if cap is None or not [step for step in plan.steps if step.output_cap > cap]:
            return plan
        return plan.each(lambda step: step.capped(cap)).because(f"output capped at {cap}")


def _names_a_maximum(body: Mapping[str, Any]) -> bool:
    return body.get("max_completion_tokens") is not None or body.get("max_tokens") is not None

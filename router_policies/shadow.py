"""Another plan answers a share of the requests as well, unheard, and the answers are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from msgspec.structs import replace

from gateway.plan import Aside, Context, Plan
from gateway.types import NANO, Request

BUDGET_USD_MAX = 9_000_000


@dataclass(frozen=True, slots=True)
class Shadow:
    """Leaves the steps as they are, and has `by` answer some of the requests too, once the client has its answer.

    `by`          a candidate of the route, or any route or deployment that the tenant may ask for.
    `share`       of the requests: 0.01 is 1 %.  Which ones hangs on their ids alone.
    `budget_usd`  dollars a day (UTC) for all of it; it is no tenant's, and once it is spent nothing more is asked.
    `llm`         a candidate, or what the tenant may ask for, that grades one answer beside the other; else tool calls,
                  JSON and final answers must be the same, and of free texts the share of common words is taken.
    `reference`   `shadow`: the client's answer is measured by the other one; `served`: the other way round.
    """

    by: str
    share: float = 0.01
    budget_usd: Decimal = Decimal(1)
    llm: str = ""
    reference: str = "shadow"
    aside: Aside = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.by:
            raise ValueError("shadow: by must name who answers as well")
        if not 0 <= self.share <= 1:
            raise ValueError(f"shadow: share must be from 0 to 1, not {self.share!r}")
        if not 0 <= self.budget_usd <= BUDGET_USD_MAX:
            raise ValueError(f"shadow: budget_usd must be from 0 to {BUDGET_USD_MAX} dollars, not {self.budget_usd}")
        if self.reference not in ("shadow", "served"):
            raise ValueError(f"shadow: reference must be shadow or served, not {self.reference!r}")
        budget = int(self.budget_usd * NANO)
        aside = Aside(self.by, self.share, budget, self.llm, is_reference=self.reference == "shadow")
        object.__setattr__(self, "aside", aside)

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps."""
        return replace(plan, aside=self.aside)

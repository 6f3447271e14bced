"""Savings by cause, from sums: what was paid, what it would have cost, and why; what is measured and what modelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.savings import MODELLED, Saving
from gateway.sql.spend import Sum
from gateway.types import NanoUSD

DISCARDED, SHADOWS = "discarded", "shadows"
"""Causes that only ever cost: judges and answers thrown away, and the gateway's own questions."""


@dataclass(frozen=True, slots=True)
class Saved:
    """One group.  Every amount is net, below 0 a loss; requests whose cost is unknown save nothing and cost nothing."""

    group: tuple[str | None, ...]
    paid: NanoUSD
    measured: Mapping[str, NanoUSD]  # the tokens that were, priced otherwise; and what was paid in vain
    modelled: Mapping[str, NanoUSD]  # rest on what another model, or the same uncapped, might have said

    @property
    def net(self) -> NanoUSD:
        """All causes together."""
        return sum(self.measured.values()) + sum(self.modelled.values())

    @property
    def otherwise(self) -> NanoUSD:
        """What it would have cost without us: paid and net together, exactly."""
        return self.paid + self.net


def saved(sums: Sum) -> Saved:
    """Of one group of records."""
    causes: dict[str, NanoUSD] = {str(cause): getattr(sums, f"saved_{cause}") for cause in Saving}
    measured = {name: amount for name, amount in causes.items() if name not in MODELLED}
    in_vain = {DISCARDED: sums.shadow - sums.overhead, SHADOWS: -sums.shadow}
    modelled = {name: amount for name, amount in causes.items() if name in MODELLED}
    return Saved(sums.group, sums.cost, {**measured, **in_vain}, modelled)

"""Who pays what: costs with mark-ups, and shares of what all use.  Pure, in whole nano-dollars.

Amounts are worked out for each tenant and then spread over its lines, so that every grouping of the same records adds
up to the same total.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal

from gateway.sql.spend import Sum
from gateway.types import NanoUSD


@dataclass(frozen=True, slots=True)
class Terms:
    """Mark-ups as shares (0.15: 15 %), by tenant; and a sum that all tenants carry together."""

    markup: Decimal = Decimal(0)
    markups: Mapping[str, Decimal] = field(default_factory=dict)  # of these tenants, in its place
    shared: NanoUSD = 0
    by_tokens: Decimal = Decimal(1)  # weight of a tenant's share of all tokens
    by_peak: Decimal = Decimal(0)  # weight of its share of the tenants' peaks, each in its own busiest hour

    def __post_init__(self) -> None:
        if min(self.by_tokens, self.by_peak) < 0 or self.by_tokens + self.by_peak != 1:
            raise ValueError("the weights of tokens and peak must be 0 or more and add up to 1")
        if self.shared < 0 or min([self.markup, *self.markups.values()]) <= -1:
            raise ValueError("a shared cost must be 0 or more, a mark-up above -100 %")


@dataclass(frozen=True, slots=True)
class Charge:
    """One line: what it cost, what is added, and its part of what is shared."""

    sums: Sum
    markup: NanoUSD = 0
    shared: NanoUSD = 0

    @property
    def total(self) -> NanoUSD:
        """What is charged."""
        return self.sums.cost + self.markup + self.shared


def charges(lines: Sequence[Sum], peaks: Mapping[str, int], terms: Terms) -> list[Charge]:
    """Lines by (tenant, ...) -> charges by the rest of the grouping.  `peaks`: tokens in each tenant's busiest hour."""
    by_tenant: dict[str, list[Sum]] = {}
    for line in lines:
        by_tenant.setdefault(line.group[0] or "", []).append(line)
    shares = dict(zip(by_tenant, _shared(by_tenant, peaks, terms), strict=True))
    found: list[Charge] = []
    for tenant, own in by_tenant.items():
        added = _rounded(sum(line.cost for line in own) * terms.markups.get(tenant, terms.markup))
        marked = apportioned(added, [line.cost for line in own])
        carried = apportioned(shares[tenant], [_tokens(line) for line in own])
        found += [Charge(*each) for each in zip(own, marked, carried, strict=True)]
    return found


def merged(found: Iterable[Charge], keep: int) -> list[Charge]:
    """The same charges without the first `keep` names of their groups, dearest first."""
    together: dict[tuple[str | None, ...], Charge] = {}
    for each in found:
        group = each.sums.group[keep:]
        own = replace(each, sums=replace(each.sums, group=group))
        known = together.get(group)
        together[group] = (
            Charge(known.sums + own.sums, known.markup + own.markup, known.shared + own.shared) if known else own
        )
    return sorted(together.values(), key=lambda each: (-each.total, repr(each.sums.group)))


def apportioned(amount: NanoUSD, weights: Sequence[int]) -> list[NanoUSD]:
    """`amount` in parts as large as the weights ask, to the nano-dollar: largest remainders first, then in order.

    Without any weight the parts are equal.
    """
    if not weights:
        return []
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    sign, amount = (-1, -amount) if amount < 0 else (1, amount)
    parts = [amount * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda index: -(amount * weights[index] % whole))
    for index in order[: amount - sum(parts)]:
        parts[index] += 1
    return [sign * part for part in parts]


def _shared(tenants: Mapping[str, list[Sum]], peaks: Mapping[str, int], terms: Terms) -> list[NanoUSD]:
    by_tokens = _rounded(terms.shared * terms.by_tokens)
    used = apportioned(by_tokens, [sum(map(_tokens, lines)) for lines in tenants.values()])
    peak = apportioned(terms.shared - by_tokens, [peaks.get(tenant, 0) for tenant in tenants])
    return [one + other for one, other in zip(used, peak, strict=True)]


def _tokens(line: Sum) -> int:
    return line.input_tokens + line.output_tokens


def _rounded(amount: Decimal) -> NanoUSD:
    return int(amount.to_integral_value(ROUND_HALF_EVEN))

"""How well prompt caches are read, by tenant and route, what keeps them from it, and what that costs a month."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from gateway.doctor.diagnosis import ADVICE, Cause
from gateway.money import dollars
from gateway.sql.cache_breaks import Break, breaks
from gateway.sql.records import Filter
from gateway.sql.spend import spend
from gateway.types import NanoUSD

MONTH_S = 30 * 86400
SPAN_S_MIN = 3600.0
"""What happened once is not told as if it went on all month: it is spread over an hour at least."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """One tenant's route ("": no route, a deployment asked for by name).  Token counts are exact, of records."""

    tenant: str
    route: str
    requests: int
    input_tokens: int
    cached_tokens: int
    breaks: tuple[Break, ...]  # dearest first; estimates
    until: float  # unix seconds

    @property
    def hit_rate(self) -> float | None:
        """Input tokens read from prompt caches, over all input tokens; None without any."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else None

    def a_month(self, found: Break) -> NanoUSD:
        """What it costs in 30 days at the pace since it began."""
        span = max(SPAN_S_MIN, self.until - found.hour * 3600)
        return round(found.cost * MONTH_S / span)

    @property
    def lost_a_month(self) -> NanoUSD:
        """Of all breaks together."""
        return sum(self.a_month(found) for found in self.breaks)


def checkups(connection: Connection, since: float, until: float, tenant: str | None = None) -> list[Checkup]:
    """Of [since, until), unix seconds; the dearest first."""
    only = {} if tenant is None else {"tenant": tenant}
    found: dict[tuple[str, str], list[Break]] = {}
    for each in breaks(connection, since, until, only):
        found.setdefault((each.tenant, each.route), []).append(each)
    sums = {
        (str(name), str(route)): (each.requests, each.input_tokens, each.cached_tokens)
        for each in spend(connection, Filter(since=since, until=until, equal=only), ("tenant", "route"), None)
        for name, route in [each.group]
    }
    made = [Checkup(*key, *sums.get(key, (0, 0, 0)), tuple(found.get(key, ())), until) for key in {**sums, **found}]
    return sorted(made, key=lambda each: (-each.lost_a_month, -each.input_tokens, each.tenant, each.route))


def described(each: Checkup) -> dict[str, Any]:
    """As JSON tells it."""
    return {
        "tenant": each.tenant,
        "route": each.route,
        "requests": each.requests,
        "input_tokens": each.input_tokens,
        "cached_tokens": each.cached_tokens,
        "hit_rate": each.hit_rate,
        "lost_a_month_usd": dollars(each.lost_a_month),
        "breaks": list(_breaks(each)),
    }


def _breaks(each: Checkup) -> Iterator[dict[str, Any]]:
    for found in each.breaks:
        yield {
            "cause": found.cause,
            "deployment": found.deployment,
            "role": found.role,
            "block": found.block,
            "token": found.token,
            "requests_estimated": found.requests,
            "lost_tokens_estimated": found.tokens,
            "lost_usd": dollars(found.cost),
            "lost_a_month_usd": dollars(each.a_month(found)),
            "advice": ADVICE[Cause(found.cause)],
        }

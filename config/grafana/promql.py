"""The words in which dashboards ask.  `generate.py` draws what they ask.

Dollars and tokens over a range are `increase()`: exact from a series' second scrape on; what came before its first one
is in `tollgate report`, which counts records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """`queries`: legend -> PromQL.  `limits`: where it turns orange and red; falling if less is worse."""

    title: str
    says: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: str = "lines"  # or stacked, number, bars
    limits: tuple[float, ...] = ()
    width: int = 12


@dataclass(frozen=True)
class Dashboard:
    """Rows of panels by their heading."""

    title: str
    says: str
    variables: tuple[str, ...]
    rows: Mapping[str, tuple[Panel, ...]]


def number(title: str, says: str, expr: str, unit: str, *limits: float) -> Panel:
    """One figure."""
    return Panel(title, says, {"": expr}, unit, "number", limits, 4)


WHO = 'tenant=~"$tenant"'
TENANT_DEPLOYMENT = f'{WHO}, deployment=~"$deployment"'
INPUT = 'kind!~"output|reasoning|audio_out|image_out|other"'
CACHED = 'kind=~"cache_read|audio_cache_read"'
FAILED = 'outcome=~"upstream_error|broken_stream|presumed"'
SERVED = 'outcome!="refused"'


def grew(metric: str, labels: str = TENANT_DEPLOYMENT, over: str = "$__range", by: str = "") -> str:
    """How much a counter rose."""
    return f"sum{f' by ({by})' if by else ''} (increase({metric}{{{labels}}}[{over}]))"


def pace(metric: str, by: str, labels: str = TENANT_DEPLOYMENT, times: str = "") -> str:
    """How fast it rises, a second unless `times`."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval])){times}"


def share(part: str, whole: str) -> str:
    """Of one figure in another; none of it is 0, and no whole is no answer."""
    return f"{or_zero(part)} / ({whole} > 0)"


def ratio(by: str, part: tuple[str, str], whole: tuple[str, str]) -> str:
    """The same at every moment, by label; (metric, labels) each."""
    return f"{pace(part[0], by, part[1])} / ({pace(whole[0], by, whole[1])} > 0)"


def or_zero(expr: str) -> str:
    """0 where nothing was counted yet."""
    return f"({expr} or vector(0))"


HOURLY = " * 3600"
COST = "tollgate_cost_usd_total"
TOKENS = "tollgate_tokens_total"
ROUTE, ON = 'route=~"$route"', 'deployment=~"$deployment"'
SPENT = grew(COST)
REQUESTS = grew("tollgate_requests_total", f"{TENANT_DEPLOYMENT}, {SERVED}")
BASELINE, PAID = grew("tollgate_baseline_cost_usd_total", WHO), grew("tollgate_compared_cost_usd_total", WHO)
SAVED = f"{BASELINE} - {PAID}"
LEFT = "(1 - account:tollgate_budget_spent_usd:ratio{%s})"

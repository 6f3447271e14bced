"""What an operator wants to be told, from balances and from sums over the records.  Pure; times are unix seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gateway.configuration.schema import Alerts
from gateway.ledger.base import Balance
from gateway.ledger.windows import span
from gateway.money import dollars, nano
from gateway.sql.outcomes import LIKENESS, Agreement
from gateway.sql.trends import HOURS, Activity
from gateway.types import NanoUSD, Unit

DAY_H = 24
HISTORY_DAYS = HOURS // DAY_H


@dataclass(frozen=True, slots=True)
class Alert:
    """`id` is the same for the same thing in the same window, whoever notices it."""

    id: str
    kind: str
    subject: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def budgets(balances: Iterable[Balance], wanted: Alerts, now: float) -> Iterator[Alert]:
    """The highest share of each money limit that is spent or set aside."""
    for balance in balances:
        limit = balance.limit
        if limit.unit is not Unit.COST or not limit.amount:
            continue
        used = balance.spent + balance.reserved
        passed = [share for share in wanted.budget_shares if used >= share * limit.amount]
        if passed:
            share = max(passed)
            its = span(limit.window, int(now * 1000))
            turn = int(now // limit.window.rolling_s) if limit.window.rolling_s else its.name
            account = balance.account
            yield Alert(
                f"budget/{account.kind}/{account.tenant}/{account.id}/{limit.id}/{turn}/{share:g}",
                "budget",
                str(account),
                f"{account} has used {share:.0%} of its budget of ${dollars(limit.amount)} per {limit.window}"
                f" (${dollars(used)}); what a full budget does: {limit.action}.",
                {
                    "share": share,
                    "limit_usd": dollars(limit.amount),
                    "used_usd": dollars(used),
                    "tenant": account.tenant,
                },
            )


def trends(activity: Iterable[Activity], wanted: Alerts, now: float) -> Iterator[Alert]:
    """Today against the seven days before, and the last hour against the mean hour."""
    hour = int(now // 3600)
    by_tenant: dict[str, list[Activity]] = {}
    by_deployment: dict[str, list[Activity]] = {}
    for each in activity:
        by_tenant.setdefault(each.tenant, []).append(each)
        by_deployment.setdefault(each.deployment, []).append(each)
    for tenant, rows in by_tenant.items():
        yield from _daily(tenant, rows, wanted, hour)
        yield from _hourly(tenant, rows, wanted, hour)
        yield from _mix(tenant, rows, wanted, hour)
    for deployment, rows in by_deployment.items():
        yield from _retries(deployment, rows, wanted, hour)


def drift(found: Iterable[Agreement], wanted: Alerts, now: float) -> Iterator[Alert]:
    """Answers that agree less with the other plan's than they should, or than they did.

    Of free texts only a fall says something: how many words two good answers have in common is nobody's aim.
    """
    by_pair: dict[tuple[str, str, str], dict[bool, Agreement]] = {}
    for each in found:
        if each.count >= wanted.requests_min:
            by_pair.setdefault((each.route, each.deployment, each.source), {})[each.late] = each
    for (route, deployment, source), known in by_pair.items():
        late, before = known.get(True), known.get(False)
        if late is None:
            continue
        low = source != LIKENESS and late.mean < wanted.agreement_min
        if low or (before is not None and late.mean < before.mean - wanted.agreement_drop):
            was = "" if before is None else f", {before.mean:.0%} in the week before"
            yield Alert(
                f"drift/{route}/{deployment}/{source}/{_date(int(now // 3600))}",
                "drift",
                f"route {route}",
                f"Answers of {deployment} on route {route} agree to {late.mean:.0%} with the other plan's in the last"
                f" day ({late.count} compared{was}).",
                {"deployment": deployment, "agreement": late.mean, "compared": late.count},
            )


def _daily(tenant: str, rows: list[Activity], wanted: Alerts, hour: int) -> Iterator[Alert]:
    today, before = _days(rows, hour)
    mean = sum(each.cost for each in before) // HISTORY_DAYS
    cost = sum(each.cost for each in today)
    if mean and cost > wanted.daily_ratio * mean and cost >= nano(wanted.floor_usd):
        yield _spend("daily", tenant, _date(hour), cost, mean, "today", "a day of the seven before")


def _hourly(tenant: str, rows: list[Activity], wanted: Alerts, hour: int) -> Iterator[Alert]:
    cost = sum(each.cost for each in rows if each.hour >= hour - 1)
    before = [each for each in rows if each.hour < hour - 1]
    mean = sum(each.cost for each in before) // HOURS
    if mean and cost > wanted.trend_ratio * mean and cost >= nano(wanted.floor_usd):
        yield _spend("trend", tenant, str(hour), cost, mean, "in this hour and the last", "an hour of the week before")


def _mix(tenant: str, rows: list[Activity], wanted: Alerts, hour: int) -> Iterator[Alert]:
    today, before = _days(rows, hour)
    if min(sum(each.requests for each in part) for part in (today, before)) < wanted.requests_min:
        return
    now, then = _shares(today), _shares(before)
    moved = {id_: now.get(id_, 0.0) - then.get(id_, 0.0) for id_ in {*now, *then}}
    shift = sum(change for change in moved.values() if change > 0)
    if shift >= wanted.mix_shift:
        most = max(moved, key=lambda id_: moved[id_])
        text = (
            f"{shift:.0%} of the spend of tenant {tenant} went to other deployments today than in the week before,"
            f" most of it to {most}."
        )
        yield Alert(f"mix/{tenant}/{_date(hour)}", "mix", f"tenant {tenant}", text, {"shift": shift, "to": most})


def _retries(deployment: str, rows: list[Activity], wanted: Alerts, hour: int) -> Iterator[Alert]:
    late = [each for each in rows if each.hour >= hour - 1]
    requests = sum(each.requests for each in late)
    if requests < wanted.requests_min:
        return
    rate, usual = _retry_rate(late), _retry_rate([each for each in rows if each.hour < hour - 1])
    if rate >= wanted.retry_rate and rate >= 3 * usual:
        text = f"Requests to {deployment} take {rate:.0%} more attempts than there are requests; usual is {usual:.0%}."
        facts = {"rate": rate, "usual": usual}
        yield Alert(f"retries/{deployment}/{hour}", "retries", f"deployment {deployment}", text, facts)


def _spend(kind: str, tenant: str, window: str, cost: NanoUSD, mean: NanoUSD, when: str, usual: str) -> Alert:
    text = f"Tenant {tenant} has spent ${dollars(cost)} {when}, {cost / mean:.1f} times {usual} (${dollars(mean)})."
    facts = {"spent_usd": dollars(cost), "mean_usd": dollars(mean), "tenant": tenant}
    return Alert(f"{kind}/{tenant}/{window}", kind, f"tenant {tenant}", text, facts)


def _days(rows: list[Activity], hour: int) -> tuple[list[Activity], list[Activity]]:
    """Of today (UTC), and of the days before."""
    first = hour // DAY_H * DAY_H
    return [each for each in rows if each.hour >= first], [each for each in rows if each.hour < first]


def _shares(rows: list[Activity]) -> dict[str, float]:
    total = sum(each.cost for each in rows) or 1
    found: dict[str, float] = {}
    for each in rows:
        found[each.deployment] = found.get(each.deployment, 0.0) + each.cost / total
    return found


def _retry_rate(rows: list[Activity]) -> float:
    requests = sum(each.requests for each in rows)
    return (sum(each.attempts for each in rows) - requests) / requests if requests else 0.0


def _date(hour: int) -> str:
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%d")

"""What is worth an alert, and what is not."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from ledgers import ACME

from gateway.alerting import alerts
from gateway.configuration.schema import Alerts
from gateway.ledger.base import Balance
from gateway.sql.trends import Activity
from gateway.types import NANO, Action, Every, Limit, Unit, Window

NOON = 1_789_560_000.0  # 2026-09-16 12:00 UTC, a Wednesday
HOUR = int(NOON // 3600)
WANTED = Alerts()
DAY = Limit("tenant", Unit.COST, 100 * NANO, Window(Every.DAY), id="day")


def balance(spent: int, reserved: int = 0, limit: Limit = DAY) -> Balance:
    return Balance(ACME, limit, spent * NANO, reserved * NANO, None)


@pytest.mark.parametrize(
    ("spent", "reserved", "share"),
    [(49, 0, None), (50, 0, 0.5), (79, 0, 0.5), (70, 10, 0.8), (99, 0, 0.8), (130, 0, 1.0)],
)
def test_the_highest_share_that_a_budget_has_passed_is_told(spent: int, reserved: int, share: float | None) -> None:
    found = list(alerts.budgets([balance(spent, reserved)], WANTED, NOON))
    assert [each.facts["share"] for each in found] == ([] if share is None else [share])


def test_an_alert_of_another_window_is_another_alert_and_one_of_the_same_is_not() -> None:
    def named(now: float, limit: Limit = DAY) -> str:
        [found] = alerts.budgets([balance(60, limit=limit)], WANTED, now)
        return found.id

    assert named(NOON) == named(NOON + 3600)
    assert named(NOON) != named(NOON + 86_400)
    rolling = Limit("tenant", Unit.COST, 100 * NANO, Window(rolling_s=600), id="r")
    assert named(NOON, rolling) != named(NOON + 601, rolling)


def test_rate_limits_and_empty_budgets_are_no_alert() -> None:
    requests = Limit("tenant", Unit.REQUESTS, 10, Window(Every.DAY), Action.DENY)
    nothing = Limit("tenant", Unit.COST, 0, Window(Every.DAY), Action.DENY)
    assert not list(alerts.budgets([balance(60, limit=requests), balance(60, limit=nothing)], WANTED, NOON))


def activity(
    hours_ago: int, dollars: float, *, deployment: str = "a", requests: int = 100, attempts: int = 0
) -> Activity:
    return Activity("acme", deployment, HOUR - hours_ago, int(dollars * NANO), requests, attempts or requests)


def kinds(*rows: Activity, wanted: Alerts = WANTED) -> list[str]:
    return [each.kind for each in alerts.trends(rows, wanted, NOON)]


WEEK = [activity(24 * day, 10) for day in range(1, 8)]


def test_a_day_above_one_and_a_half_times_the_mean_of_seven_is_told() -> None:
    assert "daily" not in kinds(*WEEK, activity(3, 15))
    assert "daily" in kinds(*WEEK, activity(3, 15.01))


def test_cents_are_no_alert_however_steep() -> None:
    assert kinds(*[activity(24 * day, 0.01) for day in range(1, 8)], activity(3, 0.9)) == []
    small = Alerts(floor_usd=Decimal("0.5"))
    assert "daily" in kinds(*[activity(24 * day, 0.01) for day in range(1, 8)], activity(3, 0.9), wanted=small)


def test_a_new_tenant_has_no_trend() -> None:
    assert kinds(activity(0, 1000)) == []


def test_an_hour_at_ten_times_the_mean_hour_is_told() -> None:
    hourly = [activity(hour, 1) for hour in range(2, 170)]
    assert "trend" not in kinds(*hourly, activity(0, 10))
    assert "trend" in kinds(*hourly, activity(0, 10.1))


def test_spend_that_moves_to_another_deployment_is_told_with_its_name() -> None:
    stays = [*WEEK, activity(5, 7, deployment="a"), activity(6, 3, deployment="b")]
    moves = [*WEEK, activity(5, 6, deployment="a"), activity(6, 4, deployment="b")]
    [found] = [each for each in alerts.trends(moves, WANTED, NOON) if each.kind == "mix"]
    assert found.facts["to"] == "b"
    assert kinds(*stays, wanted=Alerts(mix_shift=0.31)) == []
    few = [activity(1, 9, deployment="b", requests=49)]
    assert "mix" not in kinds(*WEEK, *few)


def test_a_spike_of_retries_is_told_and_the_usual_rate_is_not() -> None:
    usual = [activity(24 * day, 10, attempts=108) for day in range(1, 8)]
    assert "retries" not in kinds(*usual, activity(0, 1, attempts=120))  # below three times the usual
    assert "retries" in kinds(*usual, activity(0, 1, attempts=124))
    assert "retries" not in kinds(activity(0, 1, attempts=109))
    assert "retries" in kinds(activity(0, 1, attempts=110))
    assert "retries" not in kinds(activity(0, 1, requests=49, attempts=200))


def test_every_kind_of_trend_is_told_once_in_its_window_and_again_in_the_next() -> None:
    before = [activity(hour, 0.1) for hour in range(2, 170)]
    rows = [*before, activity(0, 40, deployment="b", attempts=300)]
    told = {each.kind: each.id for each in alerts.trends(rows, WANTED, NOON)}
    assert set(told) == {"daily", "trend", "mix", "retries"}
    assert {each.kind: each.id for each in alerts.trends(rows, WANTED, NOON + 3599)} == told
    later = [replace(each, hour=each.hour + 24) for each in rows]
    tomorrow = {each.kind: each.id for each in alerts.trends(later, WANTED, NOON + 86_400)}
    assert set(tomorrow) == set(told)
    assert not set(tomorrow.values()) & set(told.values())

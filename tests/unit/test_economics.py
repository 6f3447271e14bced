"""The worked examples of machines, blends and months; and a forecast that is as sure as it says."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from decimal import Decimal as D  # noqa: N817  # figures in tables stay legible

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.economics import SURE, blended, break_even, compare, forecast, per_million, with_retries
from gateway.types import NANO


@pytest.mark.parametrize(
    ("per_hour", "speed", "used", "cost"),
    [
        ("2.90", "4200", "1", "0.1918"),
        ("2.90", "1500", "1", "0.5370"),
        ("2.90", "2500", "1", "0.3222"),
        ("2.49", "3000", "1", "0.2306"),
    ],
)
def test_a_machine_by_the_hour(per_hour: str, speed: str, used: str, cost: str) -> None:
    assert round(per_million(D(per_hour), D(speed), D(used)), 4) == D(cost)


@pytest.mark.parametrize(("used", "cost"), [("1", "1.85"), ("0.5", "3.70"), ("0.3", "6.17"), ("0.2", "9.25")])
def test_a_machine_of_175_000_dollars_a_year(used: str, cost: str) -> None:
    assert round(per_million(D(175_000) / 8760, D(3000), D(used)), 2) == D(cost)


def test_one_h100_against_30_cents() -> None:
    found = compare(D("2.49"), D(3000), D("0.30"))
    assert (found.monthly, found.flips_at) == (D("1792.80"), D(5_976_000_000))
    assert compare(D("2.49"), D(3000), D("0.30"), hours=D(360)).flips_at == D(2_988_000_000)
    assert found.pays
    assert not compare(D("2.49"), D(1000), D("0.30")).pays


def test_158_000_dollars_a_year_against_8_per_million() -> None:
    assert break_even(D(158_000), D(8)) == D(19_750_000_000)


def test_at_the_break_even_both_cost_the_same_and_beyond_it_the_machine_is_cheaper() -> None:
    found = compare(D("2.49"), D(3000), D("0.30"), monthly_extra=D(100))
    at = per_million(found.monthly / 720, D(3000), found.utilization_needed)
    assert round(at, 12) == D("0.30")
    assert per_million(found.monthly / 720, D(3000), found.utilization_needed * D("1.01")) < D("0.30")


def test_blends() -> None:
    mix = (D("0.70"), D("0.25"), D("0.05"))
    assert blended(list(zip(mix, (D("0.005"), D("0.03"), D("0.50")), strict=True))) == D("0.036")
    a_day = 100_000_000
    routed = blended(list(zip(mix, (D("0.0005"), D("0.005"), D("0.05")), strict=True))) * a_day
    cheaper = blended(list(zip(mix, (D("0.0005"), D("0.002"), D("0.05")), strict=True))) * a_day
    flat = D("0.005") * a_day
    assert (flat, routed, cheaper) == (500_000, 410_000, 335_000)
    assert (1 - routed / flat, 1 - cheaper / flat) == (D("0.18"), D("0.33"))
    with pytest.raises(ValueError, match="add up to 1"):
        blended([(D("0.5"), D(1))])


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_failures_of_1_percent_with_r_retries_add_r_percent(retries: int) -> None:
    assert with_retries(D(1), D("0.01"), retries) == 1 + D(retries) / 100


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0), (1, D("1.01")), (-1, 1)])
def test_a_machine_that_does_nothing_has_no_price(wrong: tuple[D, D]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        per_million(D(1), D(wrong[0]), D(wrong[1]))


def test_the_command_says_where_it_flips() -> None:
    options = ["--per-hour", "2.49", "--tokens-per-second", "3000", "--hosted", "0.30"]
    told = json.loads(CliRunner().invoke(app, ["breakeven", *options, "--json"]).stdout)
    assert (told["break_even_tokens_a_month"], told["monthly_usd"], told["pays"]) == ("5976000000", "1792.8", True)
    assert CliRunner().invoke(app, ["breakeven", *options[:-1], "much"]).exit_code == 1
    assert CliRunner().invoke(app, ["breakeven", *options[:-1], "0"]).exit_code == 1


# Forecasts

TODAY = date(2026, 11, 16)  # a Monday; 14 days are left


def days(*costs: int, until: date = TODAY) -> dict[date, int]:
    return {until - timedelta(len(costs) - number): cost for number, cost in enumerate(costs)}


def test_equal_days_go_on_as_they_were() -> None:
    found = forecast(days(*[NANO] * 15), TODAY)
    assert (found.spent, found.expected, found.low, found.high) == (15 * NANO, 30 * NANO, 30 * NANO, 30 * NANO)


def test_what_is_left_of_today_is_expected_too() -> None:
    costs = {**days(*[NANO] * 15), TODAY: NANO // 2}
    assert forecast(costs, TODAY, today_share=0.5).expected == 30 * NANO


def test_weekends_are_a_kind_of_their_own_after_two_weeks() -> None:
    first = TODAY - timedelta(28)
    costs = {day: 0 if day.weekday() >= 5 else NANO for day in (first + timedelta(n) for n in range(28))}
    weekdays = sum(date(2026, 11, day).weekday() < 5 for day in range(1, 31))
    assert forecast(costs, TODAY).expected == weekdays * NANO


def test_few_days_give_no_interval_and_none_no_forecast() -> None:
    assert forecast(days(NANO, NANO), TODAY).low is None
    assert forecast({}, TODAY).expected == 0
    assert forecast({TODAY: 5}, TODAY).expected == 5


def test_a_day_without_spend_counts_as_one() -> None:
    costs = {TODAY - timedelta(10): 10 * NANO}
    assert forecast(costs, TODAY).expected == 10 * NANO + 15 * NANO


@pytest.mark.parametrize("known", [7, 15, 28])
def test_a_forecast_is_as_sure_as_it_says(known: int) -> None:
    chance = random.Random(known)
    hits = 0
    for _ in range(1000):
        cost = [round(abs(chance.gauss(10, 3)) * NANO) for _ in range(known + 15)]
        history = days(*cost[:known])
        found = forecast(history, TODAY)
        truth = found.spent + sum(cost[known:])
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert abs(hits / 1000 - SURE) < 0.05

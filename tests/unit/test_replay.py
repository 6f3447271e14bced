from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway import settings
from gateway.catalog import Catalog, build
from gateway.replay import Replay, replay

CONFIG = """
providers: {{simulated: {{dialect: simulated}}}}
deployments:
  - {{id: small, provider: simulated, upstream_model: a, price: {{input: 1, output: 2}},
      context_max: 1000, quality: 0.6}}
  - {{id: large, provider: simulated, upstream_model: b, price: {{input: 10, output: 20}}, quality: 0.9}}
routes:
  auto: {{candidates: [large, small], policies: {policies}}}
"""


def catalog(policies: str = "[cheapest]") -> Catalog:
    return build(settings.parse(CONFIG.format(policies=policies), {}))


def row(n: int = 0, deployment: str = "large", given: int = 100, got: int = 50, **more: Any) -> dict[str, Any]:
    rates = {"small": (1, 2), "large": (10, 20)}[deployment]
    known = {"id": f"r{n}", "at": 1.0, "tenant": "acme", "key": "k", "endpoint": "chat", "model": "auto", "user": ""}
    known |= {"route": "auto", "deployment": deployment, "outcome": "ok", "stream": False, "task": "", "tags": {}}
    known |= {"tokens": {"input": given, "output": got}, "fees": {}, "input_tokens": given, "cached_tokens": 0}
    known |= {"output_tokens": got, "cost": (given * rates[0] + got * rates[1]) * 1000, "reasons": ""}
    return known | more


def one(*rows: dict[str, Any], policies: str = "[cheapest]") -> Replay:
    return replay(rows, catalog(policies))


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(0, 5000)), max_size=20))
def test_the_same_settings_would_cost_what_was_paid_without_any_error(calls: list[tuple[int, int]]) -> None:
    found = one(*(row(n, "small", *call) for n, call in enumerate(calls)))
    assert (found.cost, found.error, found.moved) == (found.was, 0.0, 0)


def test_moving_to_the_small_model_is_priced_there_and_its_length_is_not_known() -> None:
    found = one(row())
    assert (found.was, found.cost) == (2_000_000, 200_000)
    assert found.unseen == {"small"}
    assert found.error == pytest.approx(50_000)  # half of the output
    assert (found.quality_was, found.quality, found.rated) == (0.9, 0.6, 1)


def test_outcomes_say_how_good_it_would_have_been_before_ratings_do() -> None:
    turnouts = {("auto", "large"): (0.8, 0.02), ("auto", "small"): (0.7, 0.05)}
    found = replay([row(0), row(1)], catalog(), turnouts)
    assert (found.quality_was / 2, found.quality / 2) == (pytest.approx(0.8), pytest.approx(0.7))
    assert found.quality_error / 2 == pytest.approx(0.05)
    assert (found.rated, found.measured) == (2, 2)
    rated = replay([row(0)], catalog(), {("auto", "large"): (0.8, 0.02)})
    assert (rated.quality_was, rated.quality, rated.measured) == (0.9, 0.6, 0)


def test_with_enough_answers_of_both_the_longer_ones_are_expected_and_the_error_is_small() -> None:
    small = [row(n, "small", got=80 + n % 3) for n in range(60)]
    large = [row(n + 60, "large", got=40 + n % 3) for n in range(60)]
    found = one(*small, *large)
    assert found.unseen == set()
    moved = found.cost - sum(each["cost"] for each in small)
    assert moved == pytest.approx(60 * (100 + 2 * 81) * 1000, rel=0.02)
    assert 0 < found.error < 0.01 * found.cost


def test_what_does_not_fit_goes_where_it_does() -> None:
    found = one(row(given=5000))
    assert found.deployments == {"large": 1}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"outcome": "broken_stream"}, "failed or of unknown cost"),
        ({"cost": None}, "failed or of unknown cost"),
        ({"model": "gone"}, "asks for a model these settings do not have"),
    ],
)
def test_a_record_that_says_nothing_is_left_out_on_both_sides_and_counted(more: dict[str, Any], why: str) -> None:
    found = one(row(**more))
    assert (found.requests, found.was, found.cost, found.skipped) == (0, 0, 0, {why: 1})


def test_a_cascade_nobody_has_tried_costs_something_between_its_bounds() -> None:
    cascade = "[cheapest, {cascade: {min_price_ratio: 5}}]"
    found = one(row(), policies=cascade)
    assert (found.least, found.most) == (200_000, 2_200_000)
    assert found.least < found.cost < found.most
    again = one(row(reasons="cheapest; cascade: escalated, refusal"), policies=cascade)
    assert again.cost == 2_200_000

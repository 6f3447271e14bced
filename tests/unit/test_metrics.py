"""The metrics are those declared, their series are bounded, and their sums are the records' sums."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from databases import a_record
from prometheus_client.parser import text_string_to_metric_families

from gateway.ledger.base import Balance
from gateway.metrics import NAMES, Metrics
from gateway.types import NANO, Account, Action, Every, Limit, Outcome, Record, Unit, Window

ROOT = Path(__file__).parents[2]
GENERATED = re.compile(r"_(bucket|sum|count|created)$")


@dataclass
class Condition:
    open: bool = False
    inflight: int = 0


def samples(metrics: Metrics, *given: object) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(*given).decode()  # type: ignore[arg-type]
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return sum(
        number
        for (found, pairs), number in samples(metrics).items()
        if found == name and labels.items() <= dict(pairs).items()
    )


def test_the_names_are_the_public_contract() -> None:
    promised = """requests_total tokens_total cost_usd_total baseline_cost_usd_total overhead_cost_usd_total
        budget_limit_usd budget_spent_usd budget_reserved_usd budget_denials_total budget_degrades_total decisions_total
        escalations_total failovers_total retries_total request_seconds upstream_seconds time_to_first_token_seconds
        overhead_seconds circuit_open inflight_requests token_estimate_ratio usage_missing_total
        price_unknown_total overshoot_usd_total records_pending records_written_total records_failed_total
        ledger_up deployment_info compared_cost_usd_total alerts_total batches_total provider_key_calls_total
        shadows_total shadow_compared_total shadow_agreement_total
        prompt_cache_breaks_total prompt_cache_lost_usd_total"""
    assert {f"tollgate_{name}" for name in promised.split()} == NAMES


def test_every_name_that_code_dashboards_and_docs_use_is_declared() -> None:
    files = [
        path
        for folder in ("gateway", "config", "docs", "helm", "bench")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".json", ".yml", ".yaml", ".md", ".tpl"} and path.name != "metrics.py"
    ]
    used = {
        (GENERATED.sub("", name), path.name)
        for path in files
        for name in re.findall(
            r"\btollgate_[a-z_]+_(?:total|usd|seconds|open|requests|ratio|pending|bucket|sum|count)\b", path.read_text()
        )
    }
    assert not {(name, file) for name, file in used if name not in NAMES and f"{name}_total" not in NAMES}


def test_everything_rendered_is_declared() -> None:
    metrics = Metrics()
    metrics.observe(a_record(overhead_cost=5, first_token_ms=30), 1e-4, 0.5)
    names = {GENERATED.sub("", name) for name, _ in samples(metrics, [balance()], {"small": Condition()}, 3)}
    assert names <= NAMES


def test_ten_thousand_model_names_keys_users_and_tags_make_no_new_series() -> None:
    metrics = Metrics()
    metrics.observe(a_record())
    metrics.refused("acme", "chat", "model_not_found")
    before = len(samples(metrics))
    for number in range(10_000):
        name = f"made-up-{number}"
        metrics.observe(
            a_record(
                name, model=name, response_model=name, key=name, user=name, task=name, tags={name: name}, error=name
            )
        )
        metrics.refused("acme", "chat", name)
    assert len(samples(metrics)) == before
    metrics.denied("acme", "user u7", "day")
    metrics.denied("acme", "user u8", "day")
    assert value(metrics, "tollgate_budget_denials_total", account="user") == 2


def test_the_sum_of_records_is_the_metric_to_the_last_nano_dollar() -> None:
    metrics, chance = Metrics(), random.Random(7)
    exact = 4_000_000 * NANO  # so much that adding floats would lose nano-dollars
    metrics.observe(a_record(cost=exact, components={"input": exact}, reserved=exact))
    for _ in range(20_000):
        parts = {"input": chance.randrange(10**7), "output": chance.randrange(10**9)}
        cost = sum(parts.values())
        exact += cost
        metrics.observe(a_record(cost=cost, components=parts, reserved=cost))
    assert sum(metrics.nano_usd().values()) == exact
    shown = [number for (name, _), number in samples(metrics).items() if name == "tollgate_cost_usd_total"]
    assert [round(Decimal(number) * NANO) for number in shown] == list(metrics.nano_usd().values())


def test_an_unknown_cost_is_counted_as_unknown_and_not_as_zero_dollars() -> None:
    metrics = Metrics()
    metrics.observe(a_record(cost=None, components={}, estimated=True))
    assert value(metrics, "tollgate_price_unknown_total", deployment="small") == 1
    assert value(metrics, "tollgate_usage_missing_total", deployment="small") == 1
    assert not [name for name, _ in samples(metrics) if name == "tollgate_cost_usd_total"]


def test_what_was_charged_above_the_reservation_is_shown() -> None:
    metrics = Metrics()
    metrics.observe(a_record(cost=7_000, components={"output": 7_000}, reserved=5_000))
    metrics.observe(a_record(cost=4_000, components={"output": 4_000}, reserved=5_000))
    assert metrics.nano_usd("tollgate_overshoot_usd") == {("small",): 2_000}


def test_presumed_spend_is_told_apart_and_has_no_latency() -> None:
    metrics = Metrics()
    metrics.observe(a_record(version=0, outcome=Outcome.PRESUMED, cost=5_000, components={}, estimated=True))
    assert value(metrics, "tollgate_cost_usd_total", component="presumed") == pytest.approx(5e-6)
    assert value(metrics, "tollgate_request_seconds_count") == 0
    assert value(metrics, "tollgate_usage_missing_total") == 0


def balance(amount: int = 5 * NANO, account: Account | None = None, unit: Unit = Unit.COST) -> Balance:
    limit = Limit("tenant", unit, amount, Window(Every.DAY), Action.DENY)
    return Balance(account or Account("tenant", "acme", "acme"), limit, 2 * NANO, NANO // 2, None)


def test_budget_gauges_are_the_ledgers_figures_and_never_infinite() -> None:
    found = samples(Metrics(), [balance()])
    labels = (("account", "tenant"), ("tenant", "acme"), ("window", "day"))
    assert found["tollgate_budget_limit_usd", labels] == 5
    assert found["tollgate_budget_spent_usd", labels] == 2
    assert found["tollgate_budget_reserved_usd", labels] == 0.5


def test_a_budget_of_a_key_a_user_or_in_tokens_is_no_series() -> None:
    others = [
        balance(account=Account("key", "k_1", "acme")),
        balance(account=Account("user", "u7", "acme")),
        balance(unit=Unit.TOKENS),
    ]
    assert not [name for name, _ in samples(Metrics(), others) if name.startswith("tollgate_budget_")]


def test_two_budgets_of_one_window_are_one_series_the_tighter() -> None:
    text = Metrics().render([balance(9 * NANO), balance(3 * NANO), balance(6 * NANO)]).decode()
    lines = [line for line in text.splitlines() if line.startswith("tollgate_budget_limit_usd{")]
    assert lines == ['tollgate_budget_limit_usd{account="tenant",tenant="acme",window="day"} 3.0']


def test_observing_a_request_takes_microseconds() -> None:
    metrics, record = Metrics(), a_record(first_token_ms=20)
    times = []
    for _ in range(200):
        began = time.process_time_ns()
        for _ in range(20):
            metrics.observe(record, 1e-4, 0.5)
        times.append((time.process_time_ns() - began) / 20_000)
    assert min(times) < 30, "twice what it may be on a quiet machine"


WORKER = """
import sys
from databases import a_record
from gateway.metrics import Metrics
metrics = Metrics()
class Condition: open, inflight = False, 3
for _ in range(100):
    metrics.observe(a_record())
metrics.publish({"small": Condition}, 7)
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.write(metrics.render().decode())
"""


def worker(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT / "tests" / "support")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_every_worker_answers_for_all_and_the_dead_keep_their_counts_but_not_their_gauges(tmp_path: Path) -> None:
    mine, others = tmp_path / "mine", tmp_path / "other-gateway"
    mine.mkdir()
    others.mkdir()
    workers = [worker(mine), worker(mine), worker(mine), worker(others)]
    for each in workers:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    workers[0].kill()
    workers[0].wait()
    text, _ = workers[1].communicate("\n")
    alone, _ = workers[3].communicate("\n")
    workers[2].communicate("\n")
    workers[0].communicate()
    requests = [line for line in text.splitlines() if line.startswith("tollgate_requests_total{")]
    assert [line.rpartition(" ")[2] for line in requests] == ["300.0"]
    assert 'tollgate_inflight_requests{deployment="small"} 6.0' in text
    assert "tollgate_records_pending 7.0" in text
    assert " 100.0" in next(line for line in alone.splitlines() if line.startswith("tollgate_requests_total{"))


def test_a_token_kind_nobody_declared_is_one_series() -> None:
    metrics = Metrics()
    record: Record = a_record(tokens={"strange": 5, "stranger": 6}, components={"odd": 1_234})
    metrics.observe(record)
    assert value(metrics, "tollgate_tokens_total", kind="other") == 11
    assert value(metrics, "tollgate_cost_usd_total", component="other") == pytest.approx(1.234e-6)

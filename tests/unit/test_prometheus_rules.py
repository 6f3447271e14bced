"""The rules are sound, each alert has a case and a runbook, and no name in them is invented."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import NAMES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus" / "rules.yml"
CASES = sorted(RULES.parent.glob("*.test.yml"))
NAME = re.compile(r"\btollgate_[a-z0-9_]+")


def rules(kind: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDED = {rule["record"]: rule for rule in rules("record")}


def promtool(*arguments: object) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus): the rules are not tested here")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", RULES.with_name("prometheus.yml"))


def test_each_alert_fires_when_it_must_and_only_then() -> None:
    promtool("test", "rules", *CASES)


def test_each_alert_is_seen_to_fire() -> None:
    cases = [case for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_a_runbook_that_names_it(alert: str) -> None:
    runbook = ROOT / ALERTS[alert]["annotations"]["runbook_url"]
    words = runbook.read_text()
    assert re.search(rf"\b{alert}\b", words)
    assert [line for line in words.splitlines() if line.startswith("## ")] == [
        "## What it means",
        "## Where to look",
        "## What to do",
    ]


def test_no_runbook_is_for_nothing() -> None:
    wanted = {Path(rule["annotations"]["runbook_url"]).name for rule in ALERTS.values()}
    assert wanted == {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")}


@pytest.mark.parametrize(
    "rule", [*ALERTS.values(), *RECORDED.values()], ids=lambda rule: rule.get("alert", rule.get("record"))
)
def test_a_rule_asks_only_for_metrics_that_are_declared_and_series_that_are_recorded(rule: dict[str, Any]) -> None:
    recorded = set(re.findall(r"[a-z0-9_]*:?tollgate_[a-z0-9_]+:[a-z0-9_]+", rule["expr"]))
    assert recorded <= set(RECORDED)
    assert set(NAME.findall(rule["expr"])) <= NAMES

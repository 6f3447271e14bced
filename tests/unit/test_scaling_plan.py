"""docs/scaling.md: every figure of the plan for a million requests a second follows from what it assumes."""

from __future__ import annotations

import math
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
PLAN = " ".join(PAGE.partition("## A plan for a million requests a second")[2].split())
RATE = 1_000_000


def assumed(pattern: str) -> float:
    """The number that the plan's first paragraph gives for this."""
    (found,) = re.findall(pattern.replace("N", r"([\d,.]+)"), PLAN.partition("| |")[0])
    return float(found.replace(",", ""))


def test_the_plan_follows_from_what_it_assumes() -> None:
    cpu_s, calls = assumed("N us of CPU for a request") / 1e6, assumed("N ledger calls for each")
    answer_s, answer_kb = assumed("answers of N seconds"), assumed("seconds and N kB")
    record_kb, hold_kb = assumed("records of N kB"), assumed("holds of N kB")
    per_core = assumed("N ledger calls a second for one Redis core")

    busy = RATE * cpu_s
    machines = math.ceil(2 * busy / 32)
    in_flight = RATE * answer_s
    shards = RATE * calls / per_core
    vcpu = 2 * machines * 32 + 2 * shards * 2
    hourly = vcpu * 0.04
    per_request = hourly / 3600 / RATE
    for told in (
        f"= {busy:,.0f} cores busy; at 50 % use {2 * busy:,.0f} cores: {machines} machines of 32 cores, or",
        f"cores, or {2 * machines} with room for losing a region of two",
        f"= {in_flight / 1e6:.0f} million requests in flight; {in_flight / (2 * busy):,.0f} for each",
        f"{RATE * calls:,.0f} a second; at {per_core:,.0f} for a Redis core, {shards:.0f} shards, {2 * shards:.0f}",
        f"= {in_flight * hold_kb / 1e6:.0f} GB, over the shards {in_flight * hold_kb / 1e3 / shards:.0f} MB each",
        f"= {RATE * record_kb / 1e6:.1f} GB/s: not a PostgreSQL",
        f"at {answer_kb:.0f} kB an answer, {RATE * answer_kb / 1e6:.0f} GB/s in all",
        f"{2 * machines} machines of 32 cores and {2 * shards:.0f} Redis of 2 are {vcpu:,.0f} vCPU",
        f"${hourly:.0f} an hour or about {per_request * 1e6:.3f} millionths of a dollar a request",
        f"some {round(0.0001 / per_request, -2):,.0f} times that",
    ):
        assert told in PLAN, told


def test_what_a_redis_core_is_assumed_to_bear_is_below_what_was_measured() -> None:
    rows = re.findall(r"^\| \d \| [\d,]+ \| [\d,]+ \| (\d+) \| 0 \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    at_full_load = assumed("N ledger calls for each") * 1e6 / max(float(row) for row in rows)
    assert assumed("N ledger calls a second for one Redis core") < at_full_load
    assert f"{round(at_full_load, -3):,.0f} at full load" in PLAN


def test_a_budget_in_slices_is_never_more_than_the_budget() -> None:
    whole, each, regions = 10_000, 3_333, 3
    assert f"${whole:,} a day in three regions begins with ${each:,} in each" in PLAN
    assert each * regions <= whole

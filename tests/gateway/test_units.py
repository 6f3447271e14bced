"""What a resolved task costs: all that was tried for it, and for those that came to nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from databases import a_record
from harness import ADMIN_KEY, Running, config, gateway

from gateway.sql.records import row, write

AT = 1_789_560_000.0
RECORDS = [
    a_record("r1", at=AT, user="u1", task="t1", cost=100, baseline_cost=1000, attempts=3, overhead_cost=20),
    a_record("r2", at=AT, user="u1", task="t1", cost=300, baseline_cost=1000, attempts=1),
    a_record("r3", at=AT, user="u2", task="t2", cost=50, baseline_cost=None, attempts=1),
    a_record("r4", at=AT, user="u2", task="t3", cost=None, baseline_cost=9999, attempts=1),
    a_record("r5", at=AT, user="", task="", cost=5, baseline_cost=1, attempts=1, tags={"feature": "chat"}),
]
OUTCOMES = [
    {"task": "t1", "resolved": False, "source": "judge"},
    {"task": "t1", "resolved": True, "source": "desk"},
    {"task": "t2", "success": False},
    {"request": "r3", "success": True},
]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway(config(tmp_path)) as found:
        rows = [row(record) for record in RECORDS]
        await found.gateway.store.database.run(lambda connection: write(connection, rows), write=True)
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        told = await found.client.post("/admin/v1/outcomes", json={"outcomes": OUTCOMES}, headers=headers)
        assert told.status_code == 201, told.text
        yield found


async def ask(running: Running, status: int = 200, **query: str) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    reply = await running.client.get("/admin/v1/units", params={"since": "0", **query}, headers=headers)
    assert reply.status_code == status, reply.text
    found: list[dict[str, Any]] = reply.json().get("data", [])
    return found


def nano(money: dict[str, Any] | None) -> int | None:
    return None if money is None else int(money["nano_usd"])


async def test_a_resolved_task_costs_what_all_tasks_cost(running: Running) -> None:
    (found,) = await ask(running)
    assert (found["tasks"], found["resolved"], found["failed"], found["retries"], found["users"]) == (3, 1, 1, 2, 2)
    assert nano(found["cost_per_resolved_task"]) == 100 + 300 + 50
    assert nano(found["cost_per_task"]) == (100 + 300 + 50) // 3
    assert nano(found["cost_per_user"]) == (100 + 300 + 50 + 5) // 2


async def test_an_unknown_cost_is_in_no_mean_and_is_counted(running: Running) -> None:
    (found,) = await ask(running)
    assert (found["requests"], found["unknown_cost_requests"]) == (5, 1)
    assert nano(found["cost_per_request"]) == (100 + 300 + 50 + 5) // 4


async def test_savings_are_net_of_overhead_and_say_what_is_measured(running: Running) -> None:
    savings = (await ask(running))[0]["savings"]
    assert nano(savings["net"]) == (1000 + 1000 + 1) - (100 + 300 + 5)
    assert nano(savings["measured"]["paid"]) == 405
    assert nano(savings["measured"]["overhead_within"]) == 20
    assert nano(savings["modelled"]["baseline"]) == 2001


async def test_groups_add_up_and_one_without_tasks_has_no_cost_of_one(running: Running) -> None:
    found = {each["tag:feature"]: each for each in await ask(running, by="tag:feature")}
    assert sum(nano(each["cost"]) or 0 for each in found.values()) == 455
    assert found["chat"]["cost_per_resolved_task"] is None
    assert found["chat"]["cost_per_user"] is None
    await ask(running, 400, by="colour")

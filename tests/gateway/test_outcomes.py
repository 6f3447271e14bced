"""How requests turned out is told, replaced when told again, and joined with what they cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from databases import a_record
from harness import ADMIN_KEY, Running, config, gateway

from gateway.sql.records import row, write

AUTH = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway(config(tmp_path)) as found:
        yield found


async def tell(served: Running, *outcomes: dict[str, Any], status: int = 201) -> Any:
    reply = await served.client.post("/admin/v1/outcomes", json={"outcomes": list(outcomes)}, headers=AUTH)
    assert reply.status_code == status, reply.text
    return reply.json()


async def told(served: Running, **query: str) -> list[dict[str, Any]]:
    reply = await served.client.get("/admin/v1/outcomes", params={"since": "0", **query}, headers=AUTH)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["data"]
    return found


async def record(served: Running, id_: str, deployment: str, **more: Any) -> None:
    made = row(a_record(id_, deployment=deployment, route="auto", cost=1000, **more))
    await served.gateway.store.database.run(lambda connection: write(connection, [made]), write=True)


async def test_a_deployment_is_worth_the_mean_of_its_outcomes(served: Running) -> None:
    for n, name in enumerate(("small", "small", "large")):
        await record(served, f"r{n}", name)
    assert await tell(
        served,
        {"request": "r0", "success": True},
        {"request": "r1", "score": 0.5},
        {"request": "r2", "resolved": False},
    ) == {"object": "outcomes", "stored": 3}
    found = {each["deployment"]: each for each in await told(served)}
    assert (found["small"]["requests"], found["small"]["mean"]) == (2, 0.75)
    assert found["small"]["error"] == pytest.approx(1.96 * 0.25 / 2**0.5)
    assert (found["large"]["requests"], found["large"]["mean"]) == (1, 0.0)
    assert [each["deployment"] for each in await told(served, deployment="large")] == ["large"]


async def test_a_source_that_says_something_else_later_is_believed_and_others_still_count(served: Running) -> None:
    await record(served, "r0", "small")
    await tell(served, {"request": "r0", "success": False}, {"request": "r0", "success": True, "source": "tests"})
    assert (await told(served))[0]["mean"] == 0.5
    await tell(served, {"request": "r0", "success": True})
    assert (await told(served))[0]["mean"] == 1.0


async def test_a_task_tells_of_all_its_requests_but_for_those_with_an_outcome_of_their_own(served: Running) -> None:
    for n in range(3):
        await record(served, f"r{n}", "small", task="t1")
    await record(served, "r9", "small", task="t2")
    await tell(served, {"task": "t1", "success": True}, {"request": "r0", "success": False})
    (found,) = await told(served)
    assert (found["requests"], found["mean"]) == (3, pytest.approx(2 / 3))


async def test_an_outcome_may_come_before_its_record(served: Running) -> None:
    await tell(served, {"request": "r0", "success": True})
    assert await told(served) == []
    await record(served, "r0", "small")
    assert (await told(served))[0]["mean"] == 1.0


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"request": "r"},
        {"success": True},
        {"request": "r", "task": "t", "success": True},
        {"request": "r", "score": 1.5},
        {"request": "r", "score": "high"},
        {"request": "r\0", "success": True},
        {"request": "r", "success": True, "mood": "fine"},
    ],
)
async def test_what_says_nothing_or_too_much_is_refused(served: Running, outcome: dict[str, Any]) -> None:
    found = await tell(served, outcome, status=400)
    assert found["error"]["code"]


async def test_outcomes_need_the_admin_key(served: Running) -> None:
    reply = await served.client.post("/admin/v1/outcomes", json={"outcomes": [{"request": "r", "success": True}]})
    assert reply.status_code == 401

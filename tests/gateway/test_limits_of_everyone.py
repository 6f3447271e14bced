"""Limits of everyone that an administrator makes: beside those of the file, in their place, and until they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness import ADMIN_KEY, Running, config, gateway

from gateway.accounts import beside, holds, in_force
from gateway.types import Action, Every, Limit, Unit, Window

AUTH = {"authorization": f"Bearer {ADMIN_KEY}"}
DAY = Window(Every.DAY)
WRITTEN = (
    Limit("global", Unit.COST, 100, DAY, id="all"),
    Limit("deployment", Unit.COST, 10, DAY, id="each"),
    Limit("deployment", Unit.COST, 50, DAY, id="one", of="large"),
    Limit("global", Unit.COST, 80, DAY, Action.ALERT, id="tells"),
)


class Admin:
    """An administrator at a gateway whose file limits the day of everyone to one dollar."""

    def __init__(self, running: Running) -> None:
        self.running = running

    async def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        reply = await self.running.client.request(method, f"/admin/v1/{path}", json=body, headers=AUTH)
        assert reply.status_code == status, reply.text
        if await self.running.gateway._read_stored():
            self.running.gateway.reload()
        return reply.json() if reply.content else None

    async def ask(self, model: str = "small") -> int:
        return (await self.running.chat(model, max_tokens=50)).status_code

    async def in_force(self) -> dict[str, bool]:
        found = (await self("GET", "budgets"))["data"]
        return {each["id"]: each["in_force"] for each in found if each["tenant"] is None}


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    text = config(tmp_path) + "limits: [{limit_usd: 1, window: day, id: written}]\n"
    async with gateway(text) as running:
        yield Admin(running)


async def test_a_limit_of_everyone_made_here_holds_for_tenants_of_the_file(admin: Admin) -> None:
    assert await admin.ask() == 200
    body = {"tenant": None, "limit_usd": "0.000001", "window": "month"}
    made = await admin("POST", "budgets", body, 201)
    assert (made["tenant"], made["account"], made["source"], made["in_force"]) == (None, "global", "admin", True)
    assert made["balance"]["spent"]["nano_usd"] == 0  # the month's counter is new
    assert await admin.ask() == 429
    await admin("DELETE", f"budgets/{made['id']}", None, 204)
    assert await admin.ask() == 200


async def test_one_made_here_takes_the_place_of_the_files_and_gives_it_back(admin: Admin) -> None:
    body = {"tenant": None, "limit_usd": "0.000001", "window": "day"}
    await admin("PUT", "budgets/today", body, 201)
    assert await admin.in_force() == {"everyone:written": False, "today": True}
    assert await admin.ask() == 429
    await admin("PUT", "budgets/today", {**body, "limit_usd": 500})
    assert await admin.ask() == 200
    await admin("PUT", "budgets/today", {**body, "until": "2020-01-01"})
    assert await admin.in_force() == {"everyone:written": True, "today": False}
    assert await admin.ask() == 200
    metrics = (await admin.running.client.get("/metrics")).text
    assert 'tollgate_budget_limit_usd{account="global",tenant="",window="day"} 1.0' in metrics


@pytest.mark.parametrize(("account", "of"), [("deployment", "small"), ("provider", "simulated")])
async def test_a_place_is_closed_for_everyone_and_opened_again(admin: Admin, account: str, of: str) -> None:
    body = {"tenant": None, "account": account, "of": of, "limit_usd": 0, "window": "day"}
    made = await admin("PUT", f"budgets/no-{of}", body, 201)
    assert made["balance"]["remaining"]["nano_usd"] == 0
    assert await admin.ask() == 429
    assert await admin.ask("large") == (200 if account == "deployment" else 429)
    await admin("DELETE", f"budgets/no-{of}", None, 204)
    assert await admin.ask() == 200


async def test_who_changed_a_limit_of_everyone_stands_in_the_log(admin: Admin) -> None:
    body = {"tenant": None, "limit_usd": 2, "window": "day"}
    await admin("PUT", "budgets/today", body, 201)
    await admin("PUT", "budgets/today", {**body, "limit_usd": 3})
    await admin("DELETE", "budgets/today", None, 204)
    entries = (await admin("GET", "audit"))["data"]
    assert [each["action"] for each in entries] == ["budget.delete", "budget.update", "budget.create"]
    assert (entries[1]["before"]["amount"], entries[1]["after"]["amount"]) == (2_000_000_000, 3_000_000_000)
    assert {each["subject"] for each in entries} == {"today"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"limit_usd": 1, "window": "day"}, "tenant"),
        ({"tenant": None, "key": "k", "limit_usd": 1, "window": "day"}, "key"),
        ({"tenant": None, "account": "planet", "limit_usd": 1, "window": "day"}, "account"),
        ({"tenant": "acme", "account": "global", "limit_usd": 1, "window": "day"}, "account"),
        ({"tenant": None, "account": "provider", "limit_usd": 1, "window": "day", "action": "degrade"}, "action"),
        ({"tenant": None, "account": "deployment", "of": "smal", "limit_usd": 1, "window": "day"}, "of"),
        ({"tenant": "acme", "account": "provider", "of": "simm", "limit_usd": 1, "window": "day"}, "of"),
        ({"tenant": "acme", "account": "model", "of": "gpt", "limit_usd": 1, "window": "day"}, "of"),
    ],
)
async def test_a_limit_that_makes_no_sense_is_refused_and_says_where(
    admin: Admin, body: dict[str, Any], param: str
) -> None:
    if body.get("tenant"):
        body = {**body, "tenant": "globex"}
        await admin("POST", "tenants", {"id": "globex"}, 201)
    assert (await admin("POST", "budgets", body, 400))["error"]["param"] == param
    assert await admin.in_force() == {"everyone:written": True}


async def test_a_tenants_limit_does_not_become_everyones_nor_the_other_way(admin: Admin) -> None:
    await admin("POST", "tenants", {"id": "globex"}, 201)
    body = {"limit_usd": 1, "window": "day"}
    await admin("PUT", "budgets/cap", {"tenant": "globex", **body}, 201)
    await admin("PUT", "budgets/cap", {"tenant": None, **body}, 409)
    await admin("PUT", "budgets/all", {"tenant": None, **body}, 201)
    await admin("PUT", "budgets/all", {"tenant": "globex", **body}, 409)


def test_what_was_made_takes_the_place_of_what_limits_the_same_and_of_nothing_else() -> None:
    made = (Limit("deployment", Unit.COST, 70, DAY, id="made", of="large"),)
    assert [each.id for each in beside(made, WRITTEN)] == ["all", "each", "tells"]
    assert in_force(WRITTEN, made) == (WRITTEN[0], WRITTEN[1], WRITTEN[3], *made)
    assert in_force(WRITTEN, ()) == WRITTEN


@pytest.mark.parametrize("ends", [[1000.0], [500.0, 1000.0], [1000.0, 500.0]])
def test_at_every_moment_either_the_files_or_the_one_made_holds(ends: list[float]) -> None:
    made = [Limit("global", Unit.COST, 1 + n, DAY, id=f"made{n}", until=end) for n, end in enumerate(ends)]
    (written,) = beside(made, WRITTEN[:1])
    for moment in (0.0, 499.9, 500.0, 999.999, 1000.0, 1000.001, 9e9):
        assert holds(written, moment) != any(holds(each, moment) for each in made)


def test_one_made_without_an_end_outlasts_one_with_it() -> None:
    forever, ends = (Limit("global", Unit.COST, 1, DAY, until=until) for until in (None, 1000.0))
    assert list(beside([forever, ends], WRITTEN[:1])) == []
    assert list(beside([ends, forever], WRITTEN[:1])) == []

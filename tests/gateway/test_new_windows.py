"""A budget begins anew with its window, wherever it was made: nothing has to run for that."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harness import ADMIN_KEY, Running, config, gateway
from ledgers import Clock

from gateway.ledger.memory import MemoryLedger

CAP = "budgets: [{limit_usd: 100, window: day}]"
DAY = "limit_usd: 0.0001, window: day"
"""More than one request may cost, and less than two do."""
IN_THE_FILE = {
    "the tenant's": (f"budgets: [{{{DAY}}}]", "[]"),
    "each key's": (f"budgets: [{{account: key, {DAY}}}]", "[]"),
    "one key's, by its name": (f"budgets: [{{account: key, of: 'acme:prod', {DAY}}}]", "[]"),
    "each user's": (f"budgets: [{{account: user, {DAY}}}]", "[]"),
    "in another zone": (f"budgets: [{{{DAY}}}]\n    timezone: Asia/Kathmandu", "[]"),
    "of a month": ("budgets: [{limit_usd: 0.0001, window: month}]", "[]"),
    "of 20 days": ("budgets: [{limit_usd: 0.0001, rolling: 20d}]", "[]"),
    "each user's, by everyone's template": ("budgets: []", f"[{{account: user, {DAY}}}]"),
    "everyone's": ("budgets: []", f"[{{{DAY}}}]"),
    "a provider's": ("budgets: []", f"[{{account: provider, {DAY}}}]"),
}
MADE: dict[str, dict[str, Any]] = {
    "a tenant's": {"tenant": "globex"},
    "a key's": {"tenant": "globex", "key": "KEY"},
    "each key's": {"tenant": "globex", "account": "key"},
    "each user's": {"tenant": "globex", "account": "user"},
    "everyone's": {"tenant": None},
}
MONTHS = 3


class Site:
    """A gateway whose ledger lives in another year than its settings."""

    def __init__(self, running: Running, clock: Clock) -> None:
        self.running, self.clock, self.key = running, clock, "test-key-of-acme"

    async def ask(self) -> int:
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 50}
        headers = {"authorization": f"Bearer {self.key}", "x-tollgate-user": "ann"}
        return (await self.running.client.post("/v1/chat/completions", json=body, headers=headers)).status_code

    async def admin(self, path: str, body: Any) -> Any:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        reply = await self.running.client.post(f"/admin/v1/{path}", json=body, headers=headers)
        assert reply.status_code == 201, reply.text
        await self.running.gateway._read_stored()
        self.running.gateway.reload()
        return reply.json()

    async def holds_for_months(self) -> None:
        """One request passes in each window, and no second one."""
        for month in range(1, MONTHS + 1):
            self.clock.now = datetime(2031, month, 3, 12, tzinfo=UTC).timestamp()
            assert [await self.ask(), await self.ask()] == [200, 429]


@pytest.mark.parametrize("whose", IN_THE_FILE)
async def test_a_budget_of_the_file_holds_anew_in_every_window(tmp_path: Path, whose: str) -> None:
    budgets, limits = IN_THE_FILE[whose]
    text = config(tmp_path, script="?first_token_ms=0&output=50").replace(CAP, budgets) + f"limits: {limits}\n"
    clock = Clock()
    async with gateway(text, ledger=MemoryLedger(clock=clock)) as running:
        await Site(running, clock).holds_for_months()


@pytest.mark.parametrize("whose", MADE)
async def test_a_budget_that_an_administrator_made_holds_anew_in_every_window(tmp_path: Path, whose: str) -> None:
    clock = Clock()
    text = config(tmp_path, script="?first_token_ms=0&output=50")
    async with gateway(text, ledger=MemoryLedger(clock=clock)) as running:
        site = Site(running, clock)
        await site.admin("tenants", {"id": "globex"})
        made = await site.admin("tenants/globex/keys", {"name": "prod"})
        site.key = made["secret"]
        body = {name: made["id"] if value == "KEY" else value for name, value in MADE[whose].items()}
        await site.admin("budgets", {**body, "limit_usd": "0.0001", "window": "month"})
        await site.holds_for_months()

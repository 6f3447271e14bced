"""Alerts reach log, metric and webhooks once per window, whichever replica notices; a dead webhook delays nothing."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import a_record
from harness import config, gateway
from ledgers import WEDNESDAY, Clock, draft, record

from gateway.alerting.alerts import Alert
from gateway.alerting.watchman import Watchman
from gateway.alerting.webhooks import TRIES, Webhooks
from gateway.configuration.schema import Alerts, Webhook
from gateway.ledger.base import Line, Reservation, Spent
from gateway.ledger.memory import MemoryLedger
from gateway.metrics import Metrics
from gateway.rebuild import Owned
from gateway.sql.records import row, write
from gateway.sql.tenants import Store
from gateway.types import Account, Action, Every, Limit, Unit, Window

LIMIT = Limit("tenant", Unit.COST, 1000, Window(Every.DAY), Action.DENY, "day")
USER = Limit("user", Unit.COST, 1000, Window(Every.DAY), Action.DENY, "user")
LINE = Line(Account("tenant", "acme", "acme"), LIMIT, 0)
HOOKS = [Webhook(url="http://one/hook", headers={"x": "y"}), Webhook(url="http://two/slack", kind="slack")]


class Listener(httpx.AsyncBaseTransport):
    """Webhooks: what they were told; those in `dead` never answer well."""

    def __init__(self, *dead: str) -> None:
        self.told: list[tuple[str, Any]] = []
        self.dead = dead
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if request.url.host in self.dead:
            raise httpx.ConnectError("nobody is there")
        self.told.append((request.url.host, json.loads(await request.aread())))
        return httpx.Response(200)


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


class Replica:
    def __init__(self, ledger: MemoryLedger, store: Store, listener: Listener, limits: list[Owned]) -> None:
        self.metrics = Metrics()
        self.webhooks = Webhooks(self.metrics, listener, at_once)
        self.now = time.time()
        self.watchman = Watchman(
            ledger,
            store.database,
            self.metrics,
            self.webhooks,
            wanted=lambda: Alerts(webhooks=HOOKS),
            shared=lambda: [LINE],
            limits=lambda: limits,
            clock=lambda: self.now,
        )

    async def look(self) -> None:
        await self.watchman.look()
        await asyncio.gather(*self.webhooks._tasks)

    def count(self, kind: str, outcome: str) -> float:
        self.metrics.publish({}, 0)
        found = self.metrics._registry.get_sample_value("tollgate_alerts_total", {"kind": kind, "outcome": outcome})
        return found or 0.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path}/t.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_schema_url")
    made = Store(url)
    await made.open()
    yield made
    made.close()


async def spend(ledger: MemoryLedger, id_: str, cost: int, line: Line = LINE) -> None:
    held = Reservation(id_, "acme", (Line(line.account, line.limit, cost),), draft(id_, time.time()))
    await ledger.reserve(held)
    await ledger.settle(held, Spent(cost), record(held, cost))


async def test_a_budget_is_told_at_each_share_once_by_all_replicas_together(store: Store) -> None:
    ledger, listener = MemoryLedger(), Listener()
    replicas = [Replica(ledger, store, listener, []) for _ in range(3)]
    await spend(ledger, "a", 490)
    await asyncio.gather(*(each.look() for each in replicas))
    assert listener.told == []
    await spend(ledger, "b", 10)
    for _ in range(2):
        await asyncio.gather(*(each.look() for each in replicas))
    assert sorted(host for host, _ in listener.told) == ["one", "two"]
    body = next(body for host, body in listener.told if host == "one")
    assert (body["kind"], body["subject"], body["facts"]["share"]) == ("budget", "tenant acme", 0.5)
    slack = next(body for host, body in listener.told if host == "two")
    assert set(slack) == {"text"}
    assert "50%" in slack["text"]
    assert sum(each.count("budget", "raised") for each in replicas) == 1
    assert sum(each.count("budget", "delivered") for each in replicas) == 2
    await spend(ledger, "c", 400)
    await asyncio.gather(*(each.look() for each in replicas))
    assert len(listener.told) == 4


async def test_what_was_spent_in_the_last_window_raises_no_alert_in_this_one(store: Store) -> None:
    clock, listener = Clock(), Listener()
    ledger = MemoryLedger(clock=clock)
    replica = Replica(ledger, store, listener, [])
    for day, told in enumerate(([0.8], [0.8, 0.5])):
        replica.now = clock.now = WEDNESDAY + 86_400 * day
        await replica.look()
        await spend(ledger, f"{day}.little", 300)
        await replica.look()
        await spend(ledger, f"{day}.more", 590 if day == 0 else 200)
        await replica.look()
        assert [body["facts"]["share"] for host, body in listener.told if host == "one"] == told


async def test_a_replica_that_is_restarted_does_not_tell_again(store: Store) -> None:
    ledger, listener = MemoryLedger(), Listener()
    await spend(ledger, "a", 1000)
    await Replica(ledger, store, listener, []).look()
    await Replica(ledger, store, listener, []).look()
    assert len(listener.told) == 2


async def test_a_dead_webhook_delays_neither_the_others_nor_the_next_look(store: Store) -> None:
    ledger, listener = MemoryLedger(), Listener("one")
    replica = Replica(ledger, store, listener, [])
    await spend(ledger, "a", 1000)
    await replica.watchman.look()  # returns while deliveries are under way
    await asyncio.gather(*replica.webhooks._tasks)
    assert [host for host, _ in listener.told] == ["two"]
    assert listener.asked == TRIES + 1
    assert replica.count("budget", "undelivered") == 1


async def test_a_webhook_that_hangs_holds_no_request_up(tmp_path: Path) -> None:
    text = config(tmp_path, limit="0.0001", script="?first_token_ms=0&output=50")
    silent = await asyncio.start_server(lambda *_: asyncio.sleep(0), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    text += f"alerts: {{every_s: 0.02, webhooks: [{{url: 'http://127.0.0.1:{port}/never'}}]}}\n"
    async with silent, gateway(text) as running:
        assert (await running.chat("small", max_tokens=50)).status_code == 200
        hooks = running.gateway.sites.current.settings.alerts.webhooks
        running.gateway.webhooks.send(Alert("x", "budget", "s", "t"), hooks, 0)
        began = time.monotonic()
        assert (await running.chat("small", max_tokens=50)).status_code == 429
        assert time.monotonic() - began < 1
        for _ in range(200):
            metrics = (await running.client.get("/metrics")).text
            if 'tollgate_alerts_total{kind="budget",outcome="raised"}' in metrics:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the budget was not told")


async def test_users_and_trends_are_found_in_the_records_by_one_replica(store: Store) -> None:
    ledger, listener = MemoryLedger(), Listener()
    ann = Line(Account("user", "ann", "acme"), USER, 0)
    await spend(ledger, "a", 900, ann)
    now = time.time()
    today = now // 86_400 * 86_400
    rows = [row(a_record(f"old{day}", at=today - 86_400 * day + 60, cost=10**9)) for day in range(1, 8)]
    rows += [row(a_record("new", at=today, cost=2 * 10**9, user="ann"))]
    await store.database.run(lambda connection: write(connection, rows), write=True)
    replicas = [Replica(ledger, store, listener, [(USER, "acme")]) for _ in range(2)]
    for each in replicas:
        await each.look()
    told = [body for host, body in listener.told if host == "one"]
    assert {"budget", "daily"} <= {body["kind"] for body in told}
    assert next(body["subject"] for body in told if body["kind"] == "budget") == "user ann"
    assert len({body["id"] for body in told}) == len(told)

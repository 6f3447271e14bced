"""Presumed spend, and the comparison of what ledger, records and metrics say."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from harness import ADMIN_KEY, Running, config, gateway
from ledgers import draft
from msgspec.structs import replace
from typer.testing import CliRunner

from gateway.cli import app as tollgate
from gateway.cli.ledger_figures import figures
from gateway.ledger.base import Line, Reservation
from gateway.money import dollars
from gateway.types import Account, Outcome
from gateway.verify import metrics_of, told_by_metrics

AUTH = {"authorization": f"Bearer {ADMIN_KEY}"}
HELD = 5_000_000


async def until_in_sql(running: Running, count: int) -> None:
    recorder = running.gateway.parts.recorder
    for _ in range(200):
        await recorder.step()
        rows = (await running.client.get("/admin/v1/records", headers=AUTH)).json()["data"]
        if len(rows) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the records did not come to SQL")


async def presume(running: Running, id_: str = "ghost") -> None:
    """A request whose gateway died in its middle."""
    ledger, settings = running.gateway.parts.ledger, running.gateway.sites.current.settings
    record = replace(draft(id_, time.time()), cost=HELD, reserved=HELD, deployment="small", provider="simulated")
    lines = tuple(Line(Account("tenant", "acme", "acme"), limit, HELD) for limit in settings.tenants[0].limits)
    await ledger.reserve(Reservation(id_, "acme", lines, record, ttl_s=0))
    await ledger.expire()
    await until_in_sql(running, 1)


async def spent(running: Running) -> int:
    shown = (await running.client.get("/admin/v1/budgets", headers=AUTH)).json()["data"]
    amount: int = shown[0]["balance"]["spent"]["nano_usd"]
    return amount


async def resolve(running: Running, id_: str, body: dict[str, Any]) -> Any:
    return await running.client.post(f"/admin/v1/records/{id_}/resolve", json=body, headers=AUTH)


@pytest.mark.parametrize(("body", "cost"), [({"cost_usd": "0.002"}, 2_000_000), ({"free": True}, 0)])
async def test_an_operator_says_what_a_presumed_request_cost_and_the_budget_has_the_rest_again(
    tmp_path: Path, body: dict[str, Any], cost: int
) -> None:
    async with gateway(config(tmp_path)) as running:
        await presume(running)
        assert await spent(running) == HELD
        reply = await resolve(running, "ghost", body)
        assert reply.status_code == 200, reply.text
        assert reply.json()["ledger"] == "late"
        assert reply.json()["presumed"]["nano_usd"] == HELD
        assert await spent(running) == cost
        for _ in range(200):
            await running.gateway.parts.recorder.step()
            [row] = (await running.client.get("/admin/v1/records", headers=AUTH)).json()["data"]
            if row["outcome"] == Outcome.RESOLVED:
                break
        assert row["cost"]["nano_usd"] == cost
        [entry] = (await running.client.get("/admin/v1/audit", headers=AUTH)).json()["data"]
        assert (entry["action"], entry["subject"], entry["after"]["cost"]) == ("record.resolve", "ghost", cost)
        again = await resolve(running, "ghost", body)
        assert again.status_code == 409


async def test_only_presumptions_are_resolved(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        reply = await running.chat("small", max_tokens=5)
        await until_in_sql(running, 1)
        id_ = reply.headers["x-tollgate-request-id"]
        assert (await resolve(running, id_, {"free": True})).status_code == 409
        assert (await resolve(running, "nobody", {"free": True})).status_code == 404
        assert (await resolve(running, id_, {})).status_code == 400


async def test_ledger_and_records_agree_and_what_is_on_its_way_is_explained(tmp_path: Path) -> None:
    text = config(tmp_path) + "limits: [{account: deployment, limit_usd: 9, window: month}]\n"
    async with gateway(text) as running:
        site, store, ledger = running.gateway.sites.current, running.gateway.store, running.gateway.parts.ledger
        for task in running.gateway.parts.recorder._tasks:
            task.cancel()
        for _ in range(3):
            await running.chat("small", max_tokens=5)
        found, _, checked = await figures(site.settings, store, ledger, [])
        assert checked == 3  # the tenant's and both deployments'
        assert {str(each.account) for each in found} == {"tenant acme", "deployment small"}
        assert all(each.fine and "on their way" in each.why for each in found)
        await until_in_sql(running, 3)
        assert (await figures(site.settings, store, ledger, []))[0] == []
        lost = Line(Account("tenant", "acme", "acme"), site.settings.tenants[0].limits[0], 100)
        await ledger.reserve(Reservation("lost", "acme", (lost,), draft("lost", time.time()), ttl_s=0))
        await ledger.expire()
        await ledger.ack([token for token, _ in await ledger.outbox(10)])
        [difference], _, _ = await figures(site.settings, store, ledger, [])
        assert not difference.fine
        assert "spools" in difference.why


def test_metrics_are_held_against_the_records() -> None:
    text = 'tollgate_cost_usd_total{component="input",deployment="d",tenant="a"} 0.5\n'
    shown = metrics_of(text + text + 'tollgate_cost_usd_total{component="fee",deployment="d",tenant="b"} 0.000000001\n')
    assert shown == {"a": 10**9, "b": 1}
    assert list(told_by_metrics(shown, shown, [])) == []
    [older] = told_by_metrics({}, {"a": 7}, [])
    assert "from their start" in older
    [way] = told_by_metrics({"acme": 7}, {}, [draft("x", cost=7)])
    assert "on their way" in way
    [lost] = told_by_metrics({"acme": 8}, {}, [draft("x", cost=7)])
    assert "quarantine" in lost


def test_the_command_line_verifies_and_resolves(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(config(tmp_path))

    async def prepare() -> None:
        async with gateway(config(tmp_path)) as running:
            await running.chat("small", max_tokens=5)
            await presume(running)

    asyncio.run(prepare())
    run = CliRunner().invoke
    clean = run(tollgate, ["ledger", "verify", "--config", str(file)])
    assert clean.exit_code == 0, clean.output
    assert "1 accounts compared, 0 differ" in clean.output
    wrong = run(tollgate, ["ledger", "resolve", "ghost", "--config", str(file)])
    assert wrong.exit_code == 1
    done = run(tollgate, ["ledger", "resolve", "ghost", "--cost", "0.001", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert f"cost ${dollars(1_000_000)}" in done.output

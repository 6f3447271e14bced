"""Who may use what: endpoints, models, tiers, keys that end; and a log that only grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import ADMIN_KEY, KEY, Running, config, gateway
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.sql.tenants import Store
from gateway.types import Tenant

AUTH = {"authorization": f"Bearer {ADMIN_KEY}"}


def edited(folder: Path, *, tenant: str = "", key: str = "", deployment: str = "") -> str:
    written = config(folder)
    written = written.replace("    budgets:", f"    {tenant}\n    budgets:" if tenant else "    budgets:")
    written = written.replace(f"key: {KEY}", f"key: {KEY}{key}")
    return written.replace("{id: large,", f"{{id: large,{deployment}")


def moment(seconds: float) -> str:
    return f"'{(datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()}'"


async def messages(running: Running) -> Any:
    body = {"model": "small", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}
    return await running.client.post("/v1/messages", json=body, headers={"x-api-key": KEY})


@pytest.mark.parametrize("whose", ["tenant", "key"])
async def test_an_endpoint_that_is_not_allowed_is_refused_and_the_others_are_served(tmp_path: Path, whose: str) -> None:
    allowed = {"tenant": {"tenant": "endpoints: [chat]"}, "key": {"key": ", endpoints: [chat]"}}[whose]
    async with gateway(edited(tmp_path, **allowed)) as running:
        assert (await running.chat("small", max_tokens=5)).status_code == 200
        refused = await messages(running)
        assert refused.status_code == 403
        assert "endpoint 'messages'" in refused.json()["error"]["message"]
        assert running.provider.called == 1


async def test_a_tier_is_off_until_it_is_granted(tmp_path: Path) -> None:
    async with gateway(edited(tmp_path, deployment=" tier: frontier,")) as running:
        refused = await running.chat("large", max_tokens=5)
        assert refused.status_code == 403
        assert "frontier" in refused.json()["error"]["message"]
        assert (await running.chat("auto", max_tokens=5)).headers["x-tollgate-deployment"] == "small"
    (tmp_path / "granted").mkdir()
    granted = edited(tmp_path / "granted", deployment=" tier: frontier,", tenant="tiers: [frontier]")
    async with gateway(granted) as running:
        assert (await running.chat("large", max_tokens=5)).status_code == 200


async def test_nothing_of_a_tenant_leaves_its_regions_whatever_the_route_and_it_is_said_who_was_dropped(
    tmp_path: Path,
) -> None:
    async with gateway(edited(tmp_path, deployment=" region: eu,", tenant="regions: [eu]")) as running:
        kept = await running.chat("auto", max_tokens=5)
        assert kept.headers["x-tollgate-deployment"] == "large", "the other does not say where it runs"
        refused = await running.chat("small", max_tokens=5)
        assert refused.status_code == 403
        assert "nobody knows where" in refused.json()["error"]["message"]
        assert "allows eu" in refused.json()["error"]["message"]
        assert running.provider.called == 1


async def test_regions_that_an_administrator_sets_hold_and_are_kept(tmp_path: Path) -> None:
    async with gateway(edited(tmp_path, deployment=" region: us,")) as running:
        made = await running.client.put("/admin/v1/tenants/globex", json={"regions": ["eu"]}, headers=AUTH)
        assert made.json()["regions"] == ["eu"]
        key = await running.client.post("/admin/v1/tenants/globex/keys", json={"name": "k"}, headers=AUTH)
        await running.gateway._read_stored()
        running.gateway.reload()
        refused = await running.client.post(
            "/v1/chat/completions",
            json={"model": "large", "messages": [{"role": "user", "content": "hi"}]},
            headers={"authorization": f"Bearer {key.json()['secret']}"},
        )
        assert refused.status_code == 403
        assert "'us'" in refused.json()["error"]["message"]


async def test_what_an_administrator_allows_is_what_holds(tmp_path: Path) -> None:
    async with gateway(edited(tmp_path, deployment=" tier: frontier,")) as running:
        put, post = running.client.put, running.client.post
        body: dict[str, Any] = {"endpoints": ["chat"], "tiers": ["frontier"], "organisation": "umbrella"}
        made = await put("/admin/v1/tenants/globex", json=body, headers=AUTH)
        assert made.status_code == 201, made.text
        assert (made.json()["endpoints"], made.json()["tiers"]) == (["chat"], ["frontier"])
        assert made.json()["tags"] == {"organisation": "umbrella"}
        key = (
            await post("/admin/v1/tenants/globex/keys", json={"name": "k", "endpoints": ["ch*"]}, headers=AUTH)
        ).json()
        limit = {
            "tenant": "globex",
            "account": "user",
            "of": "ann",
            "until": "2099-01-01",
            "limit_usd": 1,
            "window": "day",
        }
        budget = (await post("/admin/v1/budgets", json=limit, headers=AUTH)).json()
        assert (budget["of"], budget["until"]) == ("ann", 4070908800.0)
        await running.gateway._read_stored()
        running.gateway.reload()
        own = {"authorization": f"Bearer {key['secret']}"}
        ask = {"model": "large", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}
        assert (await post("/v1/chat/completions", json=ask, headers=own)).status_code == 200
        assert (await post("/v1/messages", json=ask, headers=own)).status_code == 403
        rotated = (await post(f"/admin/v1/keys/{key['id']}/rotate", headers=AUTH)).json()
        assert rotated["endpoints"] == ["ch*"]


async def test_a_key_holds_until_the_second_it_ends(tmp_path: Path) -> None:
    async with gateway(edited(tmp_path, key=f", expires: {moment(3600)}")) as running:
        assert (await running.chat("small", max_tokens=5)).status_code == 200
    (tmp_path / "b").mkdir()
    async with gateway(edited(tmp_path / "b", key=f", expires: {moment(-1)}")) as running:
        assert (await running.chat("small", max_tokens=5)).status_code == 401


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_the_log_of_changes_only_grows(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/t.db" if kind == "sqlite" else request.getfixturevalue("postgres_schema_url")
    store = Store(url)
    await store.open()
    await store.create_tenant(Tenant("acme"), "somebody")
    for statement in ("delete from audit", "update audit set actor = 'nobody'"):
        with pytest.raises((DBAPIError, Exception), match="only grows"):
            await store.database.run(lambda connection, said=statement: connection.execute(text(said)), write=True)
    [entry] = await store.log(10)
    assert (entry["actor"], entry["action"]) == ("somebody", "tenant.create")
    store.close()

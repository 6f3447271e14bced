"""Which accounts a request pays into: every scope, templates and their exceptions, and the steps of a plan apart."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Running, config, gateway

from gateway.ledger.base import Line
from gateway.money import nano
from gateway.types import Account, Limit, Unit, Window

QUICK = "?first_token_ms=0&output=50"
ONE_SMALL = "0.0001"  # dollars: more than a request of 50 tokens to `small` may cost, and less than two do


def edited(folder: Path, *, limits: str = "", budgets: str = "[]", more: str = "", script: str = QUICK) -> str:
    """The usual settings with other limits."""
    text = config(folder, script=script)
    text = re.sub(r"    budgets: .*\n", f"    budgets: {budgets}\n{more}", text)
    return text + (f"limits: {limits}\n" if limits else "")


async def spent(running: Running, kind: str, id_: str, owner: str = "") -> int:
    limit = Limit(kind, Unit.COST, 0, Window())
    (balance,) = await running.gateway.parts.ledger.balances([Line(Account(kind, id_, owner), limit, 0)])
    assert balance.reserved == 0
    return balance.spent


@asynccontextmanager
async def two_tenants(folder: Path, limits: str, more: str = "", extra: str = "") -> AsyncIterator[Running]:
    other = f"  - {{id: globex, keys: [{{name: prod, key: test-key-of-globex}}]{extra}}}\n"
    async with gateway(edited(folder, limits=limits, more=more + other)) as running:
        yield running


async def ask(running: Running, key: str = "test-key-of-acme", model: str = "small", **headers: str) -> int:
    reply = await running.client.post(
        "/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 50},
        headers={"authorization": f"Bearer {key}", **headers},
    )
    return reply.status_code


@pytest.mark.parametrize("account", ["global", "provider", "deployment", "model"])
async def test_what_spans_tenants_is_one_account_for_all_of_them(tmp_path: Path, account: str) -> None:
    async with two_tenants(tmp_path, f"[{{account: {account}, limit_usd: 0.0001, window: day}}]") as running:
        assert await ask(running) == 200
        assert await ask(running, "test-key-of-globex") == 429


@pytest.mark.parametrize("account", ["tenant", "key", "user", "team"])
async def test_a_limit_of_everyone_is_a_template_for_each_tenant_and_key(tmp_path: Path, account: str) -> None:
    headers = {"x-tollgate-user": "ann", "x-tollgate-tags": "team=red"}
    async with two_tenants(tmp_path, f"[{{account: {account}, limit_usd: 0.0001, window: day}}]") as running:
        assert await ask(running, **headers) == 200
        assert await ask(running, "test-key-of-globex", **headers) == 200
        assert await ask(running, **headers) == 429


async def test_an_organisation_pays_for_its_tenants_and_nobody_can_claim_to_belong_to_it(tmp_path: Path) -> None:
    limits = "[{account: organisation, limit_usd: 0.0001, window: month}]"
    other = ", organisation: umbrella"
    async with two_tenants(tmp_path, limits, "    organisation: umbrella\n", other) as running:
        assert await ask(running) == 200
        assert await ask(running, "test-key-of-globex") == 429
    (tmp_path / "b").mkdir()
    async with two_tenants(tmp_path / "b", limits, "", other) as running:
        assert await ask(running, **{"x-tollgate-tags": "organisation=umbrella"}) == 200
        assert await ask(running, "test-key-of-globex") == 200


async def test_every_key_of_a_tenant_has_the_template_and_one_key_its_exception_until_it_ends(tmp_path: Path) -> None:
    template = "{account: key, limit_usd: 0.0001, window: day}"
    more = "      \n"
    for until, statuses in (("2099-01-01", [200, 200]), ("2020-01-01", [200, 429])):
        folder = tmp_path / until
        folder.mkdir()
        override = f"{{account: key, limit_usd: 5, window: day, of: 'acme:prod', until: {until}}}"
        async with gateway(edited(folder, budgets=f"[{template}, {override}]", more=more)) as running:
            assert [await ask(running), await ask(running)] == statuses
    folder = tmp_path / "other"
    folder.mkdir()
    elsewhere = "{account: key, limit_usd: 5, window: day, of: 'acme:other'}"
    async with gateway(edited(folder, budgets=f"[{template}, {elsewhere}]", more=more)) as running:
        assert [await ask(running), await ask(running)] == [200, 429]


@pytest.mark.parametrize(
    ("account", "headers", "fields"),
    [
        ("user", {"x-tollgate-user": "ann"}, {}),
        ("user", {}, {"user": "ann"}),
        ("user", {}, {"metadata": {"user_id": "ann"}}),
        ("task", {"x-tollgate-task": "t-1"}, {}),
        ("task", {}, {"metadata": {"task": "t-1"}}),
        ("tag:session", {"x-tollgate-tags": "session=s-1"}, {}),
    ],
)
async def test_the_first_requests_of_one_nobody_has_seen_share_a_budget_though_they_come_at_once(
    tmp_path: Path, account: str, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    budgets = f"[{{account: '{account}', limit_usd: {ONE_SMALL}, window: day}}]"
    async with gateway(edited(tmp_path, budgets=budgets)) as running:
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 50, **fields}
        auth = {"authorization": "Bearer test-key-of-acme", **headers}
        asked = [running.client.post("/v1/chat/completions", json=body, headers=auth) for _ in range(12)]
        statuses = sorted(reply.status_code for reply in await asyncio.gather(*asked))
        assert statuses == [200] + [429] * 11
        assert await ask(running) == 200  # who names nobody pays into no such budget


WIDE = {"tenant": 5, "key": 5, "user": 5, "task": 5, "team": 5, "model": 5, "provider": 5, "deployment": 5}


@pytest.mark.parametrize("full", WIDE)
async def test_the_one_account_that_is_full_refuses_whatever_the_others_allow(tmp_path: Path, full: str) -> None:
    dollars = {**WIDE, full: 0.0001}
    budgets = ", ".join(f"{{account: {kind}, limit_usd: {most}, window: day}}" for kind, most in dollars.items())
    headers = {"x-tollgate-user": "ann", "x-tollgate-task": "t-1", "x-tollgate-tags": "team=red"}
    async with gateway(edited(tmp_path, budgets=f"[{budgets}]", limits="[{limit_usd: 5, window: day}]")) as running:
        assert await ask(running, **headers) == 200
        calls = running.provider.called
        assert await ask(running, **headers) == 429
        assert running.provider.called == calls


async def test_who_has_no_budget_is_refused_for_nobody_elses(tmp_path: Path) -> None:
    budgets = "[{limit_usd: 0.0001, window: day}, {account: user, limit_usd: 0.0001, window: day}]"
    other = "  - {id: globex, keys: [{name: prod, key: test-key-of-globex}]}\n"
    async with gateway(edited(tmp_path, budgets=budgets, more=other)) as running:
        assert [await ask(running), await ask(running)] == [200, 429]
        for _ in range(3):
            assert await ask(running, "test-key-of-globex", "large", **{"x-tollgate-user": "ann"}) == 200


async def test_a_limit_that_has_ended_holds_no_more(tmp_path: Path) -> None:
    budgets = "[{limit_usd: 0.0001, window: day, until: 2020-01-01}]"
    async with gateway(edited(tmp_path, budgets=budgets)) as running:
        assert [await ask(running), await ask(running)] == [200, 200]


async def test_each_deployment_is_charged_with_what_was_used_there_and_the_other_with_nothing(tmp_path: Path) -> None:
    limits = "[{account: deployment, limit_usd: 1, window: total}, {account: provider, limit_usd: 1, window: total}]"
    text = edited(tmp_path, limits=limits).replace(f"sim-small{QUICK}", "sim-small?status=503")
    async with gateway(text) as running:
        reply = await running.chat("auto", max_tokens=50)
        assert reply.headers["x-tollgate-deployment"] == "large"
        cost = nano(reply.headers["x-tollgate-cost-usd"])
        assert await spent(running, "deployment", "large") == cost
        assert await spent(running, "deployment", "small") == 0
        assert await spent(running, "provider", "simulated") == cost


async def test_a_deployment_without_room_is_passed_over_and_the_request_is_served_elsewhere(tmp_path: Path) -> None:
    limits = "[{account: deployment, of: small, limit_usd: 0.00000001, window: day}]"
    async with gateway(edited(tmp_path, limits=limits)) as running:
        reply = await running.chat("auto", max_tokens=50)
        assert reply.status_code == 200
        assert reply.headers["x-tollgate-deployment"] == "large"
        reply = await running.chat("small", max_tokens=50)
        assert reply.status_code == 429
        assert "deployment small" in reply.json()["error"]["message"]
        assert await spent(running, "deployment", "small") == 0


async def test_a_provider_that_went_silent_is_charged_its_input_and_the_next_attempt_stays_within_the_hold(
    tmp_path: Path,
) -> None:
    limits = "[{account: deployment, limit_usd: 1, window: total}, {account: global, limit_usd: 1, window: total}]"
    text = edited(tmp_path, limits=limits).replace(f"sim-small{QUICK}", "sim-small?latency_ms=60000")
    text = text.replace("retries_max: 0", "retries_max: 0, timeouts: {first_byte_s: 0.2, total_s: 0.2}")
    text = text.replace("candidates: [large, small]", "candidates: [large, medium, small]")
    medium = "  - {id: medium, provider: simulated, upstream_model: sim-m, price: {input: 2, output: 2}}\n"
    text = text.replace("routes:", medium + "routes:")
    async with gateway(text) as running:
        reply = await running.chat("auto", max_tokens=50)
        assert reply.status_code == 200, reply.text
        wasted, total = await spent(running, "deployment", "small"), await spent(running, "global", "all")
        assert wasted > 0
        assert total == wasted + await spent(running, "deployment", "medium")
        assert await spent(running, "deployment", "large") == 0
        assert total == nano(reply.headers["x-tollgate-cost-usd"])


UNPRICED = "  - {id: unpriced, provider: simulated, upstream_model: sim-odd, price: unknown, context_max: 9999}\n"


@pytest.mark.parametrize(
    ("limits", "budgets", "key"),
    [
        ("[{account: global, of: all, limit_usd: 5, window: day}]", "[]", ""),
        ("[{account: provider, of: simulated, limit_usd: 5, window: day}]", "[]", ""),
        ("[]", "[{of: acme, limit_usd: 5, window: day}]", ""),
        ("[]", "[]", ", budgets: [{of: 'acme:prod', limit_usd: 5, window: day}]"),
    ],
    ids=["everyone's", "the provider's", "the tenant's", "the key's"],
)
async def test_an_unpriced_model_is_refused_under_any_hard_cap_and_served_without(
    tmp_path: Path, limits: str, budgets: str, key: str
) -> None:
    text = edited(tmp_path, limits=limits, budgets=budgets).replace("routes:", UNPRICED + "routes:")
    text = text.replace("key: test-key-of-acme", f"key: test-key-of-acme{key}")
    async with gateway(text) as running:
        reply = await running.chat("unpriced", max_tokens=5)
        assert reply.json()["error"]["code"] == "price_unknown"
        assert running.provider.called == 0
    (tmp_path / "free").mkdir()
    other = edited(tmp_path / "free", limits="[{account: provider, of: elsewhere, limit_usd: 5, window: day}]")
    other = other.replace("providers:\n", "providers:\n  elsewhere: {dialect: simulated}\n")
    async with gateway(other.replace("routes:", UNPRICED + "routes:")) as running:
        assert (await running.chat("unpriced", max_tokens=5)).status_code == 200


async def test_an_unpriced_model_is_refused_under_a_budget_an_administrator_made(tmp_path: Path) -> None:
    text = edited(tmp_path).replace("routes:", UNPRICED + "routes:")
    async with gateway(text) as running:
        auth = {"authorization": "Bearer test-admin-key"}
        post = running.client.post
        await post("/admin/v1/tenants", json={"id": "globex"}, headers=auth)
        made = await post("/admin/v1/tenants/globex/keys", json={"name": "prod"}, headers=auth)
        key = made.json()["secret"]
        budget = {"tenant": "globex", "limit_usd": "5", "window": "day"}
        assert (await post("/admin/v1/budgets", json=budget, headers=auth)).status_code == 201
        await running.gateway._read_stored()
        running.gateway.reload()
        assert await ask(running, key, "unpriced") == 400
        assert running.provider.called == 0


async def test_a_free_model_is_free_even_when_the_budget_is_full(tmp_path: Path) -> None:
    text = edited(tmp_path, budgets="[{limit_usd: 0, window: day}]").replace(
        "{input: 1, output: 1}", "{input: 0, output: 0}"
    )
    async with gateway(text) as running:
        assert await ask(running) == 200
        assert await ask(running, model="large") == 429


# degrade


DEGRADE = "[{limit_usd: 0.002, window: day, action: degrade}]"


async def test_a_filling_degrade_budget_makes_plans_cheaper_and_refuses_nobody(tmp_path: Path) -> None:
    text = edited(tmp_path, budgets=DEGRADE).replace(
        "policies: [{output_cap: {default: 256, max: 4096}}, cheapest]", "policies: [dearest]"
    )
    text = text.replace("policies: [dearest]", "policies: []").replace("large, small", "large")
    text = text.replace("script}", "")
    async with gateway(text) as running:
        seen = []
        for _ in range(6):
            reply = await running.chat("large", "Say much.", max_tokens=2000)
            assert reply.status_code == 200
            seen.append(reply.headers.get("x-tollgate-reasons", ""))
        assert seen[0] == ""
        assert "budget" in seen[-1]
        assert "% full" in seen[-1]
        metrics = (await running.client.get("/metrics")).text
        line = next(each for each in metrics.splitlines() if each.startswith("tollgate_budget_degrades_total{"))
        assert 'account="tenant"' in line
        assert float(line.rpartition(" ")[2]) >= 1


async def test_an_alert_budget_changes_and_refuses_nothing(tmp_path: Path) -> None:
    budgets = "[{limit_usd: 0.0001, window: day, action: alert}]"
    async with gateway(edited(tmp_path, budgets=budgets)) as running:
        for _ in range(4):
            reply = await running.chat("small", max_tokens=50)
            assert reply.status_code == 200
            assert "x-tollgate-reasons" not in reply.headers

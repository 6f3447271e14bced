"""The admin API through the whole application: what an administrator does is true for the next requests."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import a_record
from harness import ADMIN_KEY, Running, config, gateway
from msgspec.structs import replace
from sqlalchemy import select, text

from gateway.money import nano
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.records import row, write
from gateway.sql.schema import audit, keys

AUTH = {"authorization": f"Bearer {ADMIN_KEY}"}


class Admin:
    """An administrator at a running gateway."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.gateway = running.gateway
        self.store = running.gateway.store

    async def __call__(self, method: str, path: str, body: Any = None, status: int = 200, **options: Any) -> Any:
        reply = await self.running.client.request(
            method, f"/admin/v1/{path}", json=body, headers={**AUTH, **options.pop("headers", {})}, **options
        )
        assert reply.status_code == status, reply.text
        return reply.json() if reply.content and "application/json" in reply.headers.get("content-type", "") else reply

    async def error(
        self, method: str, path: str, body: Any = None, status: int = 400, **options: Any
    ) -> dict[str, Any]:
        found: dict[str, Any] = (await self(method, path, body, status, **options))["error"]
        assert set(found) == {"message", "type", "param", "code"}
        return found

    async def chat(self, secret: str) -> httpx.Response:
        """One request with this key, after the gateway has looked for changes."""
        await self.looked()
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
        return await self.running.client.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
        )

    async def looked(self) -> None:
        if await self.gateway._read_stored():
            self.gateway.reload()

    async def write(self, *records: Any) -> None:
        rows = [row(record) for record in records]
        await self.store.database.run(lambda connection: write(connection, rows), write=True)


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with gateway(config(tmp_path)) as running:
        yield Admin(running)


@pytest.fixture
async def globex(admin: Admin) -> str:
    """A tenant made here, with a key; its secret."""
    await admin("POST", "tenants", {"id": "globex"}, 201)
    secret: str = (await admin("POST", "tenants/globex/keys", {"name": "prod"}, 201))["secret"]
    return secret


@pytest.mark.parametrize("key", [None, "", "wrong", ADMIN_KEY[:-1], "test-key-of-acme", "\u00e9" * 16])
@pytest.mark.parametrize("path", ["tenants", "keys", "spend", "nothing", "../admin/openapi.json"])
async def test_nothing_is_seen_without_the_admin_key(admin: Admin, key: str | None, path: str) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}".encode()}
    reply = await admin.running.client.get(f"/admin/v1/{path}", headers=headers)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"


async def test_without_an_admin_key_in_the_configuration_there_is_no_admin_api(tmp_path: Path) -> None:
    async with gateway(config(tmp_path).replace("admin_key: test-admin-key", "")) as running:
        for headers in ({}, AUTH, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
            reply = await running.client.get("/admin/v1/tenants", headers=headers)
            assert reply.status_code == 404
            assert "admin_key" in reply.json()["error"]["message"]


async def test_a_key_made_here_is_served_and_its_secret_is_kept_nowhere(
    admin: Admin, globex: str, tmp_path: Path
) -> None:
    assert (await admin.chat(globex)).status_code == 200
    listed = await admin("GET", "tenants/globex/keys")
    assert [key["name"] for key in listed["data"]] == ["prod"]
    assert "secret" not in listed["data"][0]
    assert "digest" not in json.dumps(await admin("GET", "audit"))
    found = [file for file in tmp_path.rglob("*") if file.is_file()]  # noqa: ASYNC240  # a few small files
    assert found
    assert not [file for file in found if globex.encode() in file.read_bytes()]


async def test_a_suspended_tenant_is_refused_and_a_resumed_one_served(admin: Admin, globex: str) -> None:
    assert (await admin("POST", "tenants/globex/suspend"))["suspended"]
    refused = await admin.chat(globex)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "tenant_suspended")
    assert not (await admin("POST", "tenants/globex/resume"))["suspended"]
    assert (await admin.chat(globex)).status_code == 200


async def test_a_change_takes_effect_by_itself_within_a_second(admin: Admin, globex: str) -> None:
    assert (await admin.chat(globex)).status_code == 200
    await admin("POST", "tenants/globex/suspend")
    async with asyncio.timeout(1.5):
        while not any(  # noqa: ASYNC110  # the gateway's own clock is what is tested
            tenant.suspended for tenant in admin.gateway.sites.current.directory.tenants
        ):
            await asyncio.sleep(0.02)


async def test_a_rotated_key_overlaps_and_a_revoked_one_is_refused(admin: Admin, globex: str) -> None:
    [old] = (await admin("GET", "tenants/globex/keys"))["data"]
    await admin("POST", "budgets", {"tenant": "globex", "key": old["id"], "limit_usd": 1, "window": "day"}, 201)
    fresh = await admin("POST", f"keys/{old['id']}/rotate", {"overlap_s": 3600}, 201)
    assert (fresh["name"], fresh["replaces"]) == ("prod", old["id"])
    assert (await admin.chat(globex)).status_code == 200
    assert (await admin.chat(fresh["secret"])).status_code == 200
    assert [budget["limit"]["usd"] for budget in (await admin("GET", f"keys/{fresh['id']}"))["budgets"]] == ["1.00"]
    assert (await admin("POST", f"keys/{old['id']}/revoke"))["revoked"] is not None
    assert (await admin.chat(globex)).status_code == 401
    assert (await admin.chat(fresh["secret"])).status_code == 200
    at_once = await admin("POST", f"keys/{fresh['id']}/rotate", {"overlap_s": 0}, 201)
    assert (await admin.chat(fresh["secret"])).status_code == 401
    assert (await admin.chat(at_once["secret"])).status_code == 200
    revoked = await admin.error("POST", f"keys/{old['id']}/rotate", None, 409)
    assert "revoked" in revoked["message"]


async def test_a_budget_made_here_refuses_what_passes_it(admin: Admin, globex: str) -> None:
    body = {"tenant": "globex", "limit_usd": "0.000001", "window": "day"}
    made = await admin("POST", "budgets", body, 201)
    assert made["limit"] == {"nano_usd": 1_000, "usd": "0.000001"}
    assert made["balance"]["remaining"]["nano_usd"] == 1_000
    refused = await admin.chat(globex)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    path = f"budgets/{made['id']}"
    assert (await admin("PUT", path, {**body, "limit_usd": 1}))["limit"]["usd"] == "1.00"
    served = await admin.chat(globex)
    spent = nano(served.headers["x-tollgate-cost-usd"])
    assert (await admin("GET", path))["balance"]["spent"]["nano_usd"] == spent > 0
    await admin("DELETE", path, None, 204)
    await admin("GET", path, None, 404)


async def test_putting_the_same_again_changes_nothing(admin: Admin, globex: str) -> None:
    body = {"models": ["small"], "tags": {"team": "x"}, "timezone": "Europe/Berlin", "request_cost_max_usd": 0.5}
    changed = await admin("PUT", "tenants/globex", body)
    budget = {"tenant": "globex", "requests": 10, "rolling": "1h"}
    await admin("PUT", "budgets/b1", budget, 201)
    revision, entries = await admin.store.revision(), len((await admin("GET", "audit"))["data"])
    assert await admin("PUT", "tenants/globex", body) == changed | {
        "budgets": (await admin("GET", "tenants/globex"))["budgets"]
    }
    await admin("PUT", "budgets/b1", budget)
    await admin("POST", "tenants/globex/resume")
    assert await admin.store.revision() == revision
    assert len((await admin("GET", "audit"))["data"]) == entries
    assert changed["request_cost_max"] == {"nano_usd": 500_000_000, "usd": "0.50"}


async def test_putting_makes_what_is_not_there(admin: Admin) -> None:
    made = await admin("PUT", "tenants/initech", {}, 201)
    assert (made["source"], made["models"]) == ("admin", ["*"])
    assert (await admin.error("POST", "tenants", {"id": "initech"}, 409))["param"] == "id"


async def test_what_stands_in_the_file_is_seen_and_not_edited(admin: Admin) -> None:
    [acme] = (await admin("GET", "tenants"))["data"]
    assert (acme["id"], acme["source"]) == ("acme", "file")
    [key] = (await admin("GET", "tenants/acme/keys"))["data"]
    [budget] = (await admin("GET", "budgets", params={"tenant": "acme"}))["data"]
    assert budget["source"] == "file"
    assert budget["balance"]["remaining"]["usd"] == "100.00"
    new = {"tenant": "acme", "limit_usd": 1, "window": "day"}
    for method, path, body in (
        ("PUT", "tenants/acme", {}),
        ("POST", "tenants", {"id": "acme"}),
        ("DELETE", "tenants/acme", None),
        ("POST", "tenants/acme/suspend", None),
        ("POST", "tenants/acme/keys", {"name": "more"}),
        ("POST", f"keys/{key['id']}/revoke", None),
        ("POST", f"keys/{key['id']}/rotate", None),
        ("POST", "budgets", new),
        ("DELETE", f"budgets/{budget['id']}", None),
    ):
        error = await admin.error(method, path, body, 409)
        assert error["code"] == "conflict"
        assert "gateway.yaml" in error["message"]
    assert await admin.store.revision() == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "tenants", {"id": "has space"}, "id"),
        ("POST", "tenants", {}, "id"),
        ("POST", "tenants", {"id": "x", "model": ["*"]}, "model"),
        ("POST", "tenants", {"id": "x", "timezone": "Mars/Base"}, "timezone"),
        ("POST", "tenants", {"id": "x", "request_cost_max_usd": -1}, "request_cost_max_usd"),
        ("POST", "tenants", {"id": "x", "on_ledger_outage": "hope"}, "on_ledger_outage"),
        ("POST", "tenants", {"id": "x", "tags": {"a": 1}}, "tags.a"),
        ("POST", "budgets", {"tenant": "globex", "limit_usd": 1}, "window"),
        ("POST", "budgets", {"tenant": "globex", "window": "day"}, "limit_usd"),
        ("POST", "budgets", {"tenant": "globex", "limit_usd": "0.0000000001", "window": "day"}, "limit_usd"),
        ("POST", "budgets", {"tenant": "globex", "limit_usd": 1e12, "window": "day"}, "limit_usd"),
        ("POST", "budgets", {"tenant": "globex", "limit_usd": 1, "window": "fortnight"}, "window"),
        ("POST", "budgets", {"tenant": "globex", "limit_usd": 1, "window": "day", "account": "planet"}, "account"),
        ("GET", "spend?by=colour", None, "by"),
        ("GET", "spend?tennant=acme", None, "tennant"),
        ("GET", "spend?since=yesterday", None, "since"),
        ("GET", "spend?by=tag:%22", None, "by"),
        ("GET", "records?limit=0", None, "limit"),
        ("GET", "records?after=nonsense", None, "after"),
        ("GET", "records?after=bnVsbA==", None, "after"),
        ("GET", "records?tag=feature", None, "tag"),
        ("GET", "records?format=xml", None, "format"),
    ],
)
async def test_a_bad_request_names_the_field(
    admin: Admin, globex: str, method: str, path: str, body: Any, param: str
) -> None:
    error = await admin.error(method, path, body)
    assert (error["code"], error["param"]) == ("invalid_request", param)


async def test_what_is_not_there_is_a_404_that_says_what(admin: Admin, globex: str) -> None:
    budget = {"tenant": "globex", "key": "key_none", "limit_usd": 1, "window": "day"}
    for method, path, body in (
        ("GET", "tenants/none", None),
        ("DELETE", "tenants/none", None),
        ("POST", "tenants/none/suspend", None),
        ("GET", "tenants/none/keys", None),
        ("POST", "tenants/none/keys", {"name": "x"}),
        ("GET", "keys/none", None),
        ("POST", "keys/none/revoke", None),
        ("GET", "budgets/none", None),
        ("DELETE", "budgets/none", None),
        ("POST", "budgets", budget),
        ("POST", "budgets", {**budget, "tenant": "none"}),
        ("GET", "nothing", None),
    ):
        error = await admin.error(method, path, body, 404)
        assert "no" in error["message"]
    assert (await admin.error("PATCH", "tenants", None, 405))["code"] == "method_not_allowed"


async def test_malformed_json_is_a_400_with_its_place(admin: Admin) -> None:
    headers = {**AUTH, "content-type": "application/json"}
    reply = await admin.running.client.post("/admin/v1/tenants", content=b'{"id": ', headers=headers)
    assert reply.status_code == 400
    assert "not valid JSON" in reply.json()["error"]["message"]
    reply = await admin.running.client.post("/admin/v1/tenants", content=b'{"id": "x"}', headers=AUTH)
    assert reply.status_code == 400
    assert "content-type" in reply.json()["error"]["message"]


async def test_every_change_is_in_the_log_with_what_was_and_what_is(admin: Admin, globex: str) -> None:
    await admin("POST", "tenants/globex/suspend", headers={"x-tollgate-actor": "ada"})
    await admin("DELETE", "tenants/globex", None, 204)
    entries = (await admin("GET", "audit"))["data"]
    assert [entry["action"] for entry in entries] == ["tenant.delete", "tenant.suspend", "key.create", "tenant.create"]
    suspended = entries[1]
    assert suspended["actor"].startswith("ada at ")
    assert (suspended["before"]["suspended"], suspended["after"]["suspended"]) == (False, True)
    assert entries[0]["after"] is None
    first = await admin("GET", "audit", params={"limit": 3})
    rest = await admin("GET", "audit", params={"limit": 3, "after": first["next"]})
    assert [entry["action"] for entry in rest["data"]] == ["tenant.create"]
    with admin.store.database.engine.connect() as connection:
        assert connection.execute(select(keys)).all() == []
        assert len(connection.execute(select(audit)).all()) == 4


@pytest.mark.parametrize("after", [-1, 2**63, 10**30])
async def test_a_place_in_the_log_that_no_number_of_it_reaches_is_a_clients_mistake(admin: Admin, after: int) -> None:
    refused = await admin("GET", "audit", None, 400, params={"after": after})
    assert refused["error"]["param"] == "after"


async def test_changes_at_once_are_all_made_and_each_has_its_revision(admin: Admin) -> None:
    await asyncio.gather(*(admin("PUT", f"tenants/t{number}", {}, 201) for number in range(12)))
    replies = await asyncio.gather(
        *(admin.running.client.post("/admin/v1/tenants", json={"id": "same"}, headers=AUTH) for _ in range(6))
    )
    assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409, 409, 409]
    assert await admin.store.revision() == 13


async def test_spend_is_the_exact_sum_of_records_and_unknown_is_told(admin: Admin) -> None:
    await admin.write(
        a_record("a", cost=2**53 + 1, task="t1"),
        a_record("b", cost=2, task="t1", tenant="other"),
        a_record("c", cost=None, task="t2", baseline_cost=None),
    )
    since = {"since": "2026-09-01", "until": "2026-10-01T00:00:00Z"}
    spend = await admin("GET", "spend", params={**since, "by": "tenant,tag:feature"})
    assert [(group["tenant"], group["tag:feature"], group["requests"]) for group in spend["data"]] == [
        ("acme", "search", 2),
        ("other", "search", 1),
    ]
    assert spend["total"]["cost"] == {"nano_usd": 2**53 + 3, "usd": "9007199.254740995"}
    assert spend["total"]["unknown_cost_requests"] == 1
    tasks = await admin("GET", "tasks", params=since)
    assert [(task["task"], task["requests"], task["unknown_cost_requests"]) for task in tasks["data"]] == [
        ("t1", 1, 0),
        ("t1", 1, 0),
        ("t2", 1, 1),
    ]
    assert (await admin("GET", "spend", params={"until": "2020-01-01"}))["total"] is None


async def test_the_records_of_real_requests_are_the_ledgers_spend(admin: Admin, globex: str) -> None:
    await admin("PUT", "budgets/cap", {"tenant": "globex", "limit_usd": 1, "window": "total"}, 201)
    for _ in range(5):
        assert (await admin.chat(globex)).status_code == 200
    async with asyncio.timeout(10):
        while len((found := await admin("GET", "records", params={"tenant": "globex"}))["data"]) < 5:  # noqa: ASYNC110  # the recorder's own pace
            await asyncio.sleep(0.02)
    total = sum(record["cost"]["nano_usd"] for record in found["data"])
    assert (await admin("GET", "budgets/cap"))["balance"]["spent"]["nano_usd"] == total > 0
    assert (await admin("GET", "spend", params={"tenant": "globex"}))["total"]["cost"]["nano_usd"] == total
    counted = admin.gateway.parts.metrics.nano_usd()
    assert sum(nano_usd for labels, nano_usd in counted.items() if labels[0] == "globex") == total


async def test_records_come_by_page_as_lines_and_as_a_table(admin: Admin) -> None:
    many = [a_record(f"r{number:04d}", at=1000.0 + number // 3) for number in range(2_345)]
    many[7] = replace(many[7], user="=1+1", cost=None, components={})
    await admin.write(*many)
    pages, after = [], {}
    while True:
        page = await admin("GET", "records", params={"limit": 1000, **after})
        pages += [record["id"] for record in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    expected = sorted((record.id for record in many), reverse=True)
    assert pages == expected
    lines = await admin("GET", "records", params={"format": "ndjson"})
    assert [json.loads(line)["id"] for line in lines.text.splitlines()] == expected
    table = list(csv.DictReader(io.StringIO((await admin("GET", "records", params={"format": "csv"})).text)))
    assert [line["id"] for line in table] == expected
    odd = next(line for line in table if line["id"] == "r0007")
    assert (odd["user"], odd["cost_nano_usd"]) == ("'=1+1", "")
    assert json.loads(odd["tags"]) == {"feature": "search"}
    tagged = await admin("GET", "records", params={"tag": "feature=search", "user": "=1+1"})
    assert [record["cost"] for record in tagged["data"]] == [None]


async def test_deployments_show_price_limits_and_health(admin: Admin) -> None:
    small, large = (await admin("GET", "deployments"))["data"]
    assert small["price"]["per_million"]["input"]["usd"] == "1.00"
    assert large["price"]["per_million"]["cache_read"] == {"nano_usd": 1_000_000_000, "usd": "1.00"}
    assert (large["context_max"], large["health"]["circuit_open"], large["health"]["inflight"]) == (200_000, False, 0)


async def test_a_database_that_is_away_is_a_503_and_requests_are_served_all_the_same(
    admin: Admin, globex: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await admin.chat(globex)).status_code == 200

    async def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("The database cannot serve: connection refused")

    monkeypatch.setattr(admin.store.database, "run", away)
    error = await admin.error("GET", "spend", None, 503)
    assert "connection refused" in error["message"]
    assert (await admin.chat(globex)).status_code == 200


async def test_a_broken_export_does_not_look_complete(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    await admin.write(*(a_record(f"r{number:04d}") for number in range(1_500)))
    real, calls = admin.store.database.run, []

    async def once(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) > 1:
            raise DatabaseUnavailable("gone")
        return await real(*given, **options)

    monkeypatch.setattr(admin.store.database, "run", once)
    with pytest.raises(RuntimeError, match="response already started"):  # the server cuts the connection
        await admin("GET", "records", params={"format": "ndjson"})


async def test_a_client_cannot_reach_sql_through_a_filter(admin: Admin) -> None:
    await admin.write(a_record())
    for evil in ("' OR '1'='1", "acme'; DROP TABLE records; --", '") OR 1=1 --'):
        assert (await admin("GET", "records", params={"tenant": evil}))["data"] == []
        assert (await admin("GET", "records", params={"tag": f"feature={evil}"}))["data"] == []
    with admin.store.database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM records")).scalar_one() == 1

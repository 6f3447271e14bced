"""The data plane's OpenAPI document has every route that is served, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from harness import KEY, Running, config, gateway

from gateway.api import openapi

DOCUMENT = openapi.document()
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
ADMIN = {"/admin/", "/v1/organization/"}


async def test_every_route_is_in_the_document(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        front: Any = running.gateway._front
        served = {(method, path) for path, methods in front.endpoints.items() for method in methods}
        assert not served - set(OPERATIONS)
        for prefix in front.prefixes.keys() - ADMIN:
            assert any(path.startswith(f"{prefix}{{") for path in DOCUMENT["paths"]), prefix


async def test_every_operation_of_the_document_is_served_and_wants_a_key_where_it_says_so(tmp_path: Path) -> None:
    wrong = []
    async with gateway(config(tmp_path)) as running:
        for method, path in OPERATIONS:
            address = path.replace("{", "").replace("}", "")
            reply = await running.client.request(method, address, headers={"authorization": f"Bearer {KEY}"})
            bare = await running.client.request(method, address)
            free = DOCUMENT["paths"][path][method.lower()].get("security") == []
            missing = reply.status_code in (405, 500) or "There is nothing at" in reply.text
            if missing or (bare.status_code == 401) == free:
                wrong.append((method, path, reply.status_code, bare.status_code))
    assert not wrong


async def test_the_document_is_there_for_everyone(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        reply = await running.client.get("/openapi.json")
        assert reply.json() == DOCUMENT


@pytest.mark.parametrize("stream", [False, True])
async def test_every_header_of_a_reply_is_in_the_document(tmp_path: Path, stream: bool) -> None:
    limits = "\n    rate_limits: {requests_per_minute: 100, tokens_per_minute: 100000}\n"
    async with gateway(config(tmp_path).rstrip() + limits) as running:
        documented = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]
        reply = await running.chat(stream=stream)
        assert own(reply.headers) <= set(documented["200"]["headers"])
        assert {"x-tollgate-budget-remaining-usd", "x-ratelimit-remaining-tokens"} <= own(reply.headers)
        refused = await running.chat(model="nobody")
        assert own(refused.headers) <= set(documented["404"]["headers"])


def own(headers: Any) -> set[str]:
    """Those that are not HTTP's."""
    return {name for name in headers if name.startswith("x-") and name != "x-accel-buffering"}


def test_every_error_has_its_status_and_code_where_answers_are_generated() -> None:
    responses = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]
    missing = [
        kind.code
        for kind in openapi.leaves()
        if kind.code not in responses[str(kind.status)]["description"].split(", ")
    ]
    assert not missing


async def test_the_admin_document_tells_its_refusals(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        found = await admin_document(running)
        create = found["paths"]["/admin/v1/tenants"]["post"]["responses"]
        assert {"201", "400", "401", "404", "409", "503"} <= create.keys()
        assert not [
            path for path, methods in found["paths"].items() for each in methods.values() if "422" in each["responses"]
        ]
        assert found["security"] == [{"bearer": []}, {"key": []}]


async def admin_document(running: Running) -> dict[str, Any]:
    reply = await running.client.get("/admin/openapi.json", headers={"authorization": "Bearer test-admin-key"})
    found: dict[str, Any] = reply.json()
    return found


def test_every_header_of_our_own_that_is_read_or_sent_is_in_the_document() -> None:
    sources = Path(openapi.__file__).parents[1].rglob("*.py")
    named = {name for path in sources for name in re.findall(r'b?"(x-tollgate-[a-z-]+)"', path.read_text())}
    described = json.dumps(DOCUMENT)
    assert not [name for name in named - {"x-tollgate-actor"} if f'"{name}"' not in described]  # an administrator's

"""What keeps prompt caches from being read: found by the gateway for a provider that really caches."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from caching import CachingProvider, tool
from harness import ADMIN_KEY, KEY
from processes import TOLLGATE

from gateway import settings
from gateway.app import Gateway, running
from gateway.sql.cache_breaks import breaks

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  simulated: {{dialect: simulated, retries_max: 0}}
deployments:
  - {{id: one, provider: simulated, upstream_model: "sim-one?first_token_ms=0",
      price: {{input: 10, output: 1, cache_read: 1}}}}
  - {{id: two, provider: simulated, upstream_model: "sim-two?first_token_ms=0",
      price: {{input: 10, output: 1, cache_read: 1}}}}
  - {{id: marked, provider: simulated, upstream_model: "sim-marked?first_token_ms=0",
      price: {{input: 10, output: 1, cache_read: 1, cache_write_5m: 12.5}}}}
routes:
  auto: {{candidates: [one]}}
tenants:
  - id: acme
    keys: [{{name: prod, key: test-key-of-acme}}]
"""

RULES = "".join(
    f"Rule {chr(97 + n // 26)}{chr(97 + n % 26)} says that the {chr(97 + n % 26) * 5} of a customer is kept as it was "
    "found, told to nobody who has not asked for it, and given back when the work is done.\n"
    for n in range(60)
)
TOOLS = [tool(name, 120) for name in ("search", "fetch", "order", "refund", "weather", "calendar")]


@dataclass
class Patient:
    """A gateway before a provider that caches."""

    client: httpx.AsyncClient
    gateway: Gateway
    provider: CachingProvider
    folder: Path

    async def ask(self, system: str, user: str = "Hello.", model: str = "auto", **fields: Any) -> dict[str, Any]:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": model, "messages": turns, "max_tokens": 5, **fields}
        reply = await self.client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
        assert reply.status_code == 200, reply.text
        usage: dict[str, Any] = reply.json()["usage"]
        return usage

    async def report(self) -> list[dict[str, Any]]:
        await self.gateway.parts.recorder.round()
        reply = await self.client.get("/admin/v1/prompt-cache", headers={"authorization": f"Bearer {ADMIN_KEY}"})
        assert reply.status_code == 200, reply.text
        found: list[dict[str, Any]] = reply.json()["data"]
        return found

    async def found(self) -> list[dict[str, Any]]:
        return [each for route in await self.report() for each in route["breaks"]]


@dataclass
class Clock:
    """Of the gateway and of its provider."""

    ahead_s: float = 0.0
    real = staticmethod(time.time)

    def __call__(self) -> float:
        return self.real() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.time", made)
    return made


@pytest.fixture
async def patient(tmp_path: Path, clock: Clock) -> AsyncIterator[Patient]:
    provider = CachingProvider(clock)
    app = Gateway(lambda: settings.parse(CONFIG.format(folder=tmp_path), {}), transport=lambda _: provider)
    async with running(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield Patient(client, app, provider, tmp_path)


BROKEN = {
    "timestamp": (f"Now it is 2026-11-21T10:03:22Z.\n{RULES}", f"Now it is 2026-11-21T10:04:57Z.\n{RULES}"),
    "date": (f"Today is Friday, November 20, 2026.\n{RULES}", f"Today is Saturday, November 21, 2026.\n{RULES}"),
    "id": (
        f"Session 0b8f3a52-8a3c-4d5e-9f10-112233445566.\n{RULES}",
        f"Session 7e1d9c44-1111-4abc-8def-665544332211.\n{RULES}",
    ),
    "number": (f"You have answered 17 questions.\n{RULES}", f"You have answered 18 questions.\n{RULES}"),
    "changed_system": (f"You speak to Alice.\n{RULES}", f"You speak to Bartholomew.\n{RULES}"),
}


@pytest.mark.parametrize("cause", BROKEN)
async def test_what_changes_near_the_head_is_named_and_located(patient: Patient, cause: str) -> None:
    first, second = BROKEN[cause]
    await patient.ask(first)
    usage = await patient.ask(second, "And now?")
    assert not usage["prompt_tokens_details"]["cached_tokens"]
    (found,) = await patient.found()
    assert (found["cause"], found["role"], found["block"], found["deployment"]) == (cause, "system", 0, "one")
    assert found["token"] < 20
    lost = found["lost_tokens_estimated"]
    assert 0.9 * usage["prompt_tokens"] < lost <= usage["prompt_tokens"]
    assert float(found["lost_usd"]) == pytest.approx(lost * 9e-6, abs=1e-9)
    assert found["advice"]


async def test_a_timestamp_far_into_the_prompt_is_located_there(patient: Patient) -> None:
    half = RULES[: len(RULES) * 5 // 8]
    await patient.ask(f"{half}\nIt is 10:03 now.\n{half}")
    usage = await patient.ask(f"{half}\nIt is 10:04 now.\n{half}", "And now?")
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 1024, "the cache holds up to the timestamp"
    (found,) = await patient.found()
    assert found["cause"] == "timestamp"
    assert found["token"] == pytest.approx(usage["prompt_tokens"] / 2, rel=0.1)
    assert found["lost_tokens_estimated"] == pytest.approx(usage["prompt_tokens"] / 2, rel=0.2)


async def test_tools_in_another_order_are_told_from_other_tools(patient: Patient) -> None:
    await patient.ask(RULES, tools=TOOLS)
    await patient.ask(RULES, tools=TOOLS[::-1])
    assert [(each["cause"], each["role"], each["block"]) for each in await patient.found()] == [
        ("reordered_tools", "tools", 0)
    ]
    await patient.ask(RULES, tools=[tool("brand_new"), *TOOLS[::-1]])
    assert [each["cause"] for each in await patient.found() if each["cause"] != "reordered_tools"] == ["changed_tools"]


async def test_what_another_deployment_has_read_is_no_use_to_this_one(patient: Patient) -> None:
    await patient.ask(RULES, model="one")
    await patient.ask(RULES, model="two")
    assert [(each["cause"], each["deployment"]) for each in await patient.found()] == [("model_switched", "two")]


async def test_what_was_read_too_long_ago_has_expired(patient: Patient, clock: Clock) -> None:
    await patient.ask(RULES)
    clock.ahead_s = 600
    assert not (await patient.ask(RULES))["prompt_tokens_details"]["cached_tokens"]
    assert [each["cause"] for each in await patient.found()] == ["expired"]


async def test_a_provider_that_does_not_read_what_it_has_is_to_blame_itself(patient: Patient) -> None:
    await patient.ask(RULES)
    patient.provider.forget()  # another machine of its has never seen it
    await patient.ask(RULES)
    assert [each["cause"] for each in await patient.found()] == ["provider"]


async def test_a_prompt_below_the_minimum_is_too_short(patient: Patient) -> None:
    short = RULES[: len(RULES) // 4]
    for user in ("Hello.", "And now?"):
        await patient.ask(short, user)
    assert [each["cause"] for each in await patient.found()] == ["too_short"]


async def test_a_provider_that_caches_what_is_marked_wants_marks(patient: Patient) -> None:
    for user in ("Hello.", "And now?"):
        await patient.ask(RULES, user, model="marked")
    assert [each["cause"] for each in await patient.found()] == ["not_marked"]


async def test_nothing_is_found_where_the_cache_works(patient: Patient) -> None:
    await patient.ask(RULES)
    for user in ("What is it?", "And now?", "Why?"):
        assert (await patient.ask(RULES, user))["prompt_tokens_details"]["cached_tokens"] > 1024
    await patient.ask("You are a poet. " * 400)
    await patient.ask("Translate what you are told. " * 300)
    (found,) = await patient.report()
    assert found["breaks"] == []
    assert found["requests"] == 6
    assert 0 < found["hit_rate"] < 1


async def test_nothing_of_a_prompt_is_kept(patient: Patient) -> None:
    await patient.ask(*BROKEN["changed_system"][:1])
    await patient.ask(BROKEN["changed_system"][1])
    await patient.found()
    kept = repr(patient.gateway.parts.doctor)
    assert not [word for word in ("Alice", "Bartholomew", "Rule", "customer") if word in kept]
    stored = await patient.gateway.store.database.run(lambda connection: breaks(connection, 0, 1e10, {}))
    assert stored
    assert "Bartholomew" not in repr(stored)


async def test_the_metrics_count_what_is_found(patient: Patient) -> None:
    for text in BROKEN["timestamp"]:
        await patient.ask(text)
    (found,) = await patient.found()
    shown = (await patient.client.get("/metrics")).text
    labels = '{cause="timestamp",route="auto",tenant="acme"}'
    assert f"tollgate_prompt_cache_breaks_total{labels} 1.0" in shown
    assert f"tollgate_prompt_cache_lost_usd_total{labels} {float(found['lost_usd'])}" in shown


async def test_a_storm_of_misses_is_weighed_and_not_all_looked_at(patient: Patient) -> None:
    doctor = patient.gateway.parts.doctor
    for number in range(30):
        await patient.ask(f"You have answered {number} questions.\n{RULES}")
        assert len(doctor._waiting) <= 8
    (found,) = await patient.found()
    assert found["cause"] == "number"
    await patient.ask(f"You have answered 99 questions.\n{RULES}")
    (found,) = await patient.found()
    assert found["requests_estimated"] == 30, "the first had nothing before it, the others are looked at or weighed"


async def test_the_command_tells_the_same(patient: Patient, capsys: pytest.CaptureFixture[str]) -> None:
    for text in BROKEN["id"]:
        await patient.ask(text)
    (told,) = await patient.report()
    assert told["breaks"][0]["cause"] == "id"
    path = patient.folder / "gateway.yaml"
    path.write_text(CONFIG.format(folder=patient.folder))

    async def command(*options: str) -> str:
        words = [*TOLLGATE, "doctor", "-c", str(path), *options]
        return (await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=True)).stdout

    (shown,) = json.loads(await command("--json"))
    assert {name: shown[name] for name in ("tenant", "route", "input_tokens", "hit_rate")} == {
        name: told[name] for name in ("tenant", "route", "input_tokens", "hit_rate")
    }
    assert [each["cause"] for each in shown["breaks"]] == ["id"]
    table = await command()
    assert "acme" in table
    assert "id: Move the id" in table
    assert "none" in await command("--tenant", "nobody")

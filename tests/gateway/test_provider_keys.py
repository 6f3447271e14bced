"""Several keys of one provider, on real sockets: a key that is refused rests, and no client notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import faulty
import httpx
import orjson
import pytest
from faulty import FaultyProvider
from served import Served, served

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  several:
    dialect: openai
    base_url: "http://127.0.0.1:{port}/several/v1"
    retries_max: 0
    keys:
      - {{name: first, key: zz-first-secret, weight: 3}}
      - {{name: second, key: zz-second-secret}}
  limited:
    dialect: openai
    base_url: "http://127.0.0.1:{port}/limited-here/v1"
    keys: [{{name: only, key: zz-only-secret, requests_per_minute: 2}}]
  rotated:
    dialect: openai
    base_url: "http://127.0.0.1:{port}/rotated/v1"
    keys: [{{name: file, file: "{folder}/key", ttl_s: 3600}}]
  fine: {{dialect: openai, base_url: "http://127.0.0.1:{port}/fine/v1", api_key: sk-x}}
deployments:
  - {{id: several, provider: several, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: limited, provider: limited, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: rotated, provider: rotated, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: fine, provider: fine, upstream_model: m, price: {{input: 9, output: 9}}, output_max: 1024}}
routes:
  limited-first: {{candidates: [limited, fine], policies: [cheapest]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""
STATED = 14_000


class Keys:
    """A provider that knows its keys: what it says to each, and how often each came."""

    def __init__(self) -> None:
        self.says: dict[str, Callable[[faulty.Call], Awaitable[None]]] = {}
        self.came: Counter[str] = Counter()

    async def __call__(self, call: faulty.Call) -> None:
        self.came[call.key] += 1
        await self.says.get(call.key, faulty.fine)(call)


async def denied(call: faulty.Call) -> None:
    """As some do, with the key in its own words."""
    message = f"Your authentication token {call.key} is not accepted."
    call.all(orjson.dumps({"error": {"message": message, "type": "authentication_error"}}), 401)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
async def gateway(tmp_path: Path, keys: Keys) -> AsyncIterator[Served]:
    (tmp_path / "key").write_text("zz-old-secret\n")
    async with FaultyProvider() as provider:
        provider.faults.update({"several": keys, "limited-here": keys, "rotated": keys})
        async with served(CONFIG.format(folder=tmp_path, port=provider.port)) as found:
            yield found


async def ask(gateway: Served, model: str) -> httpx.Response:
    return await gateway.chat(model, key="key-of-acme")


def counted(gateway: Served) -> dict[str, float]:
    lines = gateway.gateway.parts.metrics.render().decode().splitlines()
    return {
        labels.partition("{")[2].rstrip("}"): float(value)
        for labels, _, value in (line.rpartition(" ") for line in lines)
        if labels.startswith("tollgate_provider_key_calls_total{")
    }


async def test_keys_share_the_calls_by_weight_and_are_counted_by_their_names(gateway: Served, keys: Keys) -> None:
    assert {(await ask(gateway, "several")).status_code for _ in range(8)} == {200}
    assert keys.came == {"zz-first-secret": 6, "zz-second-secret": 2}
    assert counted(gateway) == {
        'key="first",outcome="ok",provider="several"': 6,
        'key="second",outcome="ok",provider="several"': 2,
    }


@pytest.mark.parametrize("why", ["denied", "forbidden", "limited"])
async def test_a_key_that_is_refused_rests_and_the_next_serves_the_same_request(
    gateway: Served, keys: Keys, why: str
) -> None:
    fault = {"denied": denied, "forbidden": faulty.refusing(403), "limited": faulty.refusing(429, retry_after="40")}
    keys.says["zz-first-secret"] = fault[why]
    assert [(await ask(gateway, "several")).status_code for _ in range(4)] == [200] * 4
    assert keys.came == {"zz-first-secret": 1, "zz-second-secret": 4}
    assert [record.attempts for record in gateway.records] == [2, 1, 1, 1]
    assert {record.cost for record in gateway.records} == {STATED}
    assert not gateway.gateway.parts.health.of("several").circuit.in_a_row


async def test_where_every_key_is_refused_the_client_hears_of_none(
    gateway: Served, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.says.update({"zz-first-secret": denied, "zz-second-secret": denied})
    reply = await ask(gateway, "several")
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_denied")
    assert keys.came == {"zz-first-secret": 1, "zz-second-secret": 1}
    refused = await ask(gateway, "several")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_deployment")
    assert 0 < int(refused.headers["retry-after"]) <= 30
    assert sum(keys.came.values()) == 2
    said = "".join(capsys.readouterr()) + reply.text + str(gateway.records)
    said += gateway.gateway.parts.metrics.render().decode()
    assert "zz-" not in said


async def test_a_key_that_was_changed_in_its_file_fails_no_request(gateway: Served, keys: Keys, tmp_path: Path) -> None:
    assert (await ask(gateway, "rotated")).status_code == 200
    keys.says["zz-old-secret"] = denied
    (tmp_path / "key").write_text("zz-new-secret\n")
    assert (await ask(gateway, "rotated")).status_code == 200
    assert keys.came == {"zz-old-secret": 2, "zz-new-secret": 1}
    assert [record.attempts for record in gateway.records] == [1, 2]


async def test_a_key_that_has_used_its_minute_sends_nothing_more(gateway: Served, keys: Keys) -> None:
    assert [(await ask(gateway, "limited")).status_code for _ in range(2)] == [200, 200]
    refused = await ask(gateway, "limited")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_deployment")
    assert 60 <= int(refused.headers["retry-after"]) <= 120
    assert keys.came == {"zz-only-secret": 2}
    assert not gateway.gateway.parts.health.of("limited").open


async def test_another_deployment_serves_what_a_keys_minute_does_not(gateway: Served, keys: Keys) -> None:
    assert [(await ask(gateway, "limited-first")).status_code for _ in range(4)] == [200] * 4
    assert [record.deployment for record in gateway.records] == ["limited", "limited", "fine", "fine"]

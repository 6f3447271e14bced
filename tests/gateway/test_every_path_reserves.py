"""Nothing is sent to a provider that is not covered: every endpoint and every caller inside, seen from the wire."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from vendor import Vendor

import gateway
from gateway import settings
from gateway.api.chat import Generate
from gateway.app import Gateway, running
from gateway.ledger.base import Balance, Line, Reservation, Settlement, Spent
from gateway.ledger.memory import MemoryLedger
from gateway.money import nano
from gateway.simulated import SimulatedTransport
from gateway.types import Account, Every, Limit, Record, Unit, Window

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  simulated: {{dialect: simulated, retries_max: 1}}
  east: {{dialect: openai, base_url: "https://east.example/v1", api_key: k, retries_max: 0,
      options: {{paths: {{responses: /responses}}}}}}
deployments:
  - {{id: small, provider: simulated, upstream_model: "sim-small?first_token_ms=0&output=30",
      price: {{input: 1, output: 1}}, context_max: 128000, output_max: 4096}}
  - {{id: poor, provider: simulated, upstream_model: "sim-poor?first_token_ms=0&refusal=1",
      price: {{input: 0.1, output: 0.1}}, context_max: 128000, output_max: 4096}}
  - {{id: busy, provider: simulated, upstream_model: "sim-busy?status=503&retry_after=0",
      price: {{input: 0.5, output: 0.5}}, context_max: 128000, output_max: 4096}}
  - {{id: mute, provider: simulated, upstream_model: "sim-mute?reset=before",
      price: {{input: 0.5, output: 0.5}}, context_max: 128000, output_max: 4096}}
  - {{id: large, provider: simulated, upstream_model: "sim-large?first_token_ms=0&output=30",
      price: {{input: 10, output: 30}}, context_max: 128000, output_max: 4096}}
  - {{id: embed, provider: east, upstream_model: e, price: {{input: 0.02}}}}
  - {{id: rerank, provider: east, upstream_model: r, price: {{fees: {{search_unit: 0.002}}}}}}
  - {{id: mod, provider: east, upstream_model: m, price: {{input: 1}}}}
  - {{id: dalle, provider: east, upstream_model: dall-e-3, price: {{fees: {{image: 0.04}}}}}}
  - {{id: whisper, provider: east, upstream_model: whisper-1, price: {{fees: {{audio_second: 0.0001}}}}}}
  - {{id: tts, provider: east, upstream_model: tts-1, price: {{fees: {{character: 0.000015}}}}}}
  - {{id: legacy, provider: east, upstream_model: gpt-3.5-turbo-instruct, price: {{input: 1.5, output: 2}}}}
  - {{id: answers, provider: east, upstream_model: gpt-x, price: {{input: 1, output: 2}}, output_max: 4096}}
routes:
  retried: {{candidates: [busy, large]}}
  silent: {{candidates: [mute, large]}}
  cascade: {{candidates: [poor, large], policies: [cheapest, {{cascade: {{}}}}]}}
  graded: {{candidates: [small, poor, large], policies: [cheapest, {{cascade: {{llm: small, min_price_ratio: 1}}}}]}}
  agreed: {{candidates: [small, large], policies: [cheapest, {{cascade: {{samples: 2, min_price_ratio: 1}}}}]}}
  shadowed: {{candidates: [small, large], policies: [cheapest, {{shadow: {{by: large, share: 1}}}}]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
limits:
  - {{account: provider, limit_usd: 100, window: total}}
  - {{account: deployment, limit_usd: 100, window: total}}
"""
AUTH = {"authorization": "Bearer key-of-acme"}
SAID = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 50}
COUNTED = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CHOICE = {"index": 0, "text": " you.", "finish_reason": "stop", "logprobs": None}
REPLIES = {
    "embeddings": {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 7, "total_tokens": 7}},
    "rerank": {"results": [], "meta": {"billed_units": {"search_units": 1}}},
    "moderations": {"id": "m", "model": "m", "results": []},
    "images/generations": {"created": 1, "data": [{"b64_json": "aGk="}] * 3},
    "images/edits": {"created": 1, "data": [{"b64_json": "aGk="}] * 2},
    "images/variations": {"created": 1, "data": [{"b64_json": "aGk="}] * 2},
    "audio/transcriptions": {"text": "Hello.", "usage": {"type": "duration", "seconds": 1}},
    "audio/translations": {"text": "Hello.", "usage": {"type": "duration", "seconds": 1}},
    "audio/speech": {},
    "completions": {"id": "c", "object": "text_completion", "choices": [CHOICE], "usage": COUNTED},
}
SOUND = {"files": {"file": ("a.mp3", b"x" * 80_000)}, "data": {"model": "whisper"}}

PICTURE = {"files": {"image": ("a.png", b"x" * 100)}, "data": {"model": "dalle", "prompt": "a cat", "n": "2"}}

ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"json": {"model": "small", **SAID}},
    "/v1/messages": {"json": {"model": "small", **SAID}},
    "/v1/responses": {"json": {"model": "answers", "input": "Hello."}},
    "/v1/completions": {"json": {"model": "legacy", "prompt": "Hello", "n": 2}},
    "/v1/embeddings": {"json": {"model": "embed", "input": ["one", "two"]}},
    "/v1/rerank": {"json": {"model": "rerank", "query": "ruby", "documents": ["a"] * 150}},
    "/v1/moderations": {"json": {"model": "mod", "input": "fine"}},
    "/v1/images/generations": {"json": {"model": "dalle", "prompt": "a cat", "n": 3}},
    "/v1/images/edits": PICTURE,
    "/v1/images/variations": PICTURE,
    "/v1/audio/transcriptions": SOUND,
    "/v1/audio/translations": SOUND,
    "/v1/audio/speech": {"json": {"model": "tts", "voice": "nova", "input": "Hello, you."}},
}
"""A request to each endpoint that makes something; a new endpoint belongs here before it is served."""

INSIDE = {
    "a stream": ({"model": "small", "stream": True}, 1),
    "retries and failover": ({"model": "retried"}, 3),
    "failover from one that may have answered": ({"model": "silent"}, 2),
    "a cascade": ({"model": "cascade"}, 2),
    "a model that judges": ({"model": "graded"}, 2),
    "answers that have to agree": ({"model": "agreed"}, 2),
    "a shadow": ({"model": "shadowed"}, 2),
}
"""Callers inside, and the least number of calls they make."""

CALLERS = {
    "gateway/pipeline.py": "holds what the plan can cost, and more before each step that needs more",
    "gateway/background.py": "looks at what was made under the hold of the request, which is kept until it is settled; "
    "also for the job that does so after the gateway that was asked has gone",
    "gateway/batches/work.py": "sends lines that were held one by one when the batch was taken in: see test_batches.py",
    "gateway/api/responses.py": "reads, cancels and deletes what is stored: providers take nothing for it",
}
"""Every place that sends something to a provider, and why it is covered."""


@dataclass
class Ledger(MemoryLedger):
    """Knows what is held at this moment."""

    open: dict[str, int] = field(default_factory=dict)
    settled: list[tuple[int, int]] = field(default_factory=list)  # what was held, and what it cost

    def __post_init__(self) -> None:
        super().__init__()

    async def reserve(self, reservation: Reservation) -> list[Balance]:
        balances = await super().reserve(reservation)
        self.open[reservation.id] = max(
            (line.amount for line in reservation.lines if line.limit.unit is Unit.COST), default=0
        )
        return balances

    async def settle(self, reservation: Reservation, spent: Spent, record: Record) -> Settlement:
        self.settled.append((self.open.pop(reservation.id), record.cost or 0))
        return await super().settle(reservation, spent, record)

    async def release(self, reservation: Reservation) -> None:
        self.open.pop(reservation.id, None)
        await super().release(reservation)


@dataclass
class Wire(httpx.AsyncBaseTransport):
    """The way to the providers; notes what was held each time that something went out."""

    ledger: Ledger
    held: list[int] = field(default_factory=list)
    free: int = 0  # calls that providers take nothing for
    simulated: SimulatedTransport = field(default_factory=SimulatedTransport)
    vendor: Vendor = field(default_factory=Vendor)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "/responses/" in request.url.path:
            self.free += 1
        else:
            self.held.append(sum(self.ledger.open.values()))
        inner = self.vendor if request.url.host == "east.example" else self.simulated
        return await inner.handle_async_request(request)


@dataclass
class Seen:
    """A running gateway from outside and inside."""

    app: Gateway
    client: httpx.AsyncClient
    ledger: Ledger
    wire: Wire

    async def covered(self, calls: int, who: str) -> None:
        """Every call was made under a hold, and the bill of each request was within it."""
        async with asyncio.timeout(10):
            while self.ledger.open or len(self.wire.held) < calls:  # noqa: ASYNC110 - the gateway's own work is what is waited for
                await asyncio.sleep(0.001)
        held, settled = self.wire.held, self.ledger.settled
        assert min(held) > 0, who
        assert settled, who
        for amount, cost in settled:
            assert 0 < cost <= amount <= max(held), who
        self.wire.held, self.ledger.settled = [], []

    async def spent(self, accounts: list[Account]) -> list[int]:
        """NanoUSD of each, in the windows that its limit here has."""
        day, total = Window(Every.DAY), Window(Every.TOTAL)
        lines = [
            Line(account, Limit(account.kind, Unit.COST, 0, day if account.kind == "tenant" else total), 0)
            for account in accounts
        ]
        return [balance.spent for balance in await self.ledger.balances(lines)]


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Seen]:
    ledger = Ledger()
    wire = Wire(ledger)
    wire.vendor.replies = {f"/v1/{path}": httpx.Response(200, json=body) for path, body in REPLIES.items()}
    text = CONFIG.format(folder=folder)
    app = Gateway(lambda: settings.parse(text, {}), ledger=ledger, transport=lambda _: wire)
    async with running(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTH) as client:
            yield Seen(app, client, ledger, wire)


async def test_no_endpoint_sends_anything_that_is_not_held(tmp_path: Path) -> None:
    async with site(tmp_path) as seen:
        for path, request in ENDPOINTS.items():
            reply = await seen.client.post(path, **request)
            assert reply.status_code == 200, (path, reply.text)
            await seen.covered(1, path)


async def test_every_endpoint_is_charged_to_its_payer_its_deployment_and_its_provider(tmp_path: Path) -> None:
    async with site(tmp_path) as seen:
        for path, request in ENDPOINTS.items():
            asked = request.get("json") or request["data"]
            deployment = seen.app.sites.current.catalog.deployments[asked["model"]]
            accounts = [
                Account("tenant", "acme", "acme"),
                Account("provider", deployment.provider.id),
                Account("deployment", deployment.id),
            ]
            before = await seen.spent(accounts)
            reply = await seen.client.post(path, **request)
            await seen.covered(1, path)
            cost = nano(reply.headers["x-tollgate-cost-usd"])
            assert cost > 0, path
            assert await seen.spent(accounts) == [each + cost for each in before], path


async def test_no_caller_inside_sends_anything_that_is_not_held(tmp_path: Path) -> None:
    async with site(tmp_path) as seen:
        for who, (fields, calls) in INSIDE.items():
            reply = await seen.client.post("/v1/chat/completions", json={**SAID, **fields})
            assert reply.status_code == 200, (who, reply.text)
            await seen.covered(calls, who)


async def test_what_is_made_in_the_background_is_held_until_it_is_settled(tmp_path: Path) -> None:
    async with site(tmp_path) as seen:
        turn = asyncio.Event()
        seen.app.parts.background._sleep = _after(turn)
        body = {"model": "answers", "input": "Hello.", "background": True}
        reply = await seen.client.post("/v1/responses", json=body)
        assert reply.json()["status"] == "queued"
        assert sum(seen.ledger.open.values()) > 0
        turn.set()
        await seen.covered(1, "background")
        assert seen.wire.free >= 1


async def test_every_endpoint_that_makes_something_is_among_these(tmp_path: Path) -> None:
    async with site(tmp_path) as seen:
        served: Any = seen.app._front
        made = {path for path, methods in served.endpoints.items() if type(methods.get("POST")) is Generate}
        assert made == set(ENDPOINTS)


def test_every_place_that_sends_something_is_among_these() -> None:
    root = Path(gateway.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("upstream.open"):
                found.add(f"gateway/{path.relative_to(root).as_posix()}")
    assert found == set(CALLERS)


def _after(turn: asyncio.Event) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        await turn.wait()

    return sleep

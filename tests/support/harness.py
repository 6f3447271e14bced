"""The whole application in this process: real parts, the simulated provider, an ASGI client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2  # what Anthropic's SDK uses
import openai

from gateway import settings
from gateway.app import Gateway, running
from gateway.ledger.base import Ledger
from gateway.simulated import SimulatedTransport
from gateway.types import Record

KEY = "test-key-of-acme"
ADMIN_KEY = "test-admin-key"

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  simulated: {{dialect: simulated, retries_max: 0}}
deployments:
  - {{id: small, provider: simulated, upstream_model: "sim-small{script}", price: {{input: 1, output: 1}},
      context_max: 128000, output_max: 16384}}
  - {{id: large, provider: simulated, upstream_model: "sim-large{script}",
      price: {{input: 10, output: 30, cache_read: 1}}, context_max: 200000, output_max: 32000}}
routes:
  auto:
    candidates: [large, small]
    baseline: large
    policies: [{{output_cap: {{default: 256, max: 4096}}}}, cheapest]
tenants:
  - id: acme
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: {limit}, window: day}}]
"""


def config(folder: Path, *, limit: str = "100", script: str = "?first_token_ms=0") -> str:
    """The usual settings: two simulated deployments, one route, one tenant with a daily cap in dollars."""
    return CONFIG.format(folder=folder, limit=limit, script=script)


@dataclass
class Running:
    """A started gateway and ways to talk to it."""

    gateway: Gateway
    provider: SimulatedTransport
    client: httpx.AsyncClient
    records: list[Record] = field(default_factory=list)

    def openai(self, **options: Any) -> openai.AsyncOpenAI:
        """The official SDK, with only its base URL and key changed."""
        return openai.AsyncOpenAI(base_url="http://gateway/v1", api_key=KEY, http_client=self.client, **options)

    def anthropic(self, **options: Any) -> anthropic.AsyncAnthropic:
        """The official SDK, with only its base URL and key changed."""
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.gateway), timeout=30)
        return anthropic.AsyncAnthropic(base_url="http://gateway", api_key=KEY, http_client=client, **options)

    async def chat(self, model: str = "auto", text: str = "Say hello.", **fields: Any) -> httpx.Response:
        """One chat request."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})

    async def settled(self) -> list[Record]:
        """Every record so far, newest version of each, as the ledger handed them on."""
        return list({record.id: record for record in sorted(self.records, key=lambda each: each.version)}.values())


@asynccontextmanager
async def gateway(text: str, *, ledger: Ledger | None = None) -> AsyncIterator[Running]:
    """A gateway under the settings in `text`."""
    provider = SimulatedTransport()
    app = Gateway(lambda: settings.parse(text, {}), ledger=ledger, transport=lambda _: provider)
    async with running(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30) as client:
            found = Running(app, provider, client)
            observe = app.parts.metrics.observe

            def seen(record: Record, *rest: Any) -> None:
                found.records.append(record)
                observe(record, *rest)

            app.parts.metrics.observe = seen  # type: ignore[method-assign]
            yield found


class Visitor:
    """An ASGI client that can leave at any moment, which httpx's cannot."""

    def __init__(self, app: Any, path: str, body: bytes, key: str = KEY) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        self.app = app
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.received = bytearray()
        self.status = 0
        self.came = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.received += message.get("body", b"")
        self.came.set()
        await asyncio.sleep(0)

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    def visit(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.app(self.scope, self.incoming.get, self.send))

"""The gateway in this process, with a provider that answers at once and a ledger in memory: what its own code costs.

Exact where a measurement over sockets is not: no clients, no kernel, no other process.  CPU microseconds a request.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from bench.contenders import CHEAP, KEY, TOLLGATE
from bench.upstream import WHOLE
from gateway import settings
from gateway.app import Gateway, running
from gateway.dialects.base import Call
from gateway.ledger.memory import MemoryLedger
from gateway.settings import Settings
from gateway.tenants import hash_key
from gateway.transport.base import Answer, Sent, unheard
from gateway.types import Key

Change = Callable[[Settings], Settings]
SAMPLES = 5


class Instant(Answer):
    """The same reply, at once."""

    status = 200

    @property
    def headers(self) -> Mapping[str, str]:
        return {}

    async def chunks(self) -> AsyncIterator[bytes]:
        yield WHOLE

    async def close(self) -> None:
        pass


class Transport:
    """See gateway.transport.base."""

    async def send(self, call: Call, sent: Sent = unheard) -> Answer:  # noqa: ARG002  # a transport's signature
        sent()
        return Instant()

    async def close(self) -> None:
        pass


@dataclass(slots=True)
class Inside:
    """A started gateway, asked without HTTP."""

    gateway: Gateway
    ledger: MemoryLedger

    async def ask(self, body: bytes, key: str = KEY) -> int:
        """One request; its status."""
        status, messages = 0, [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Future()  # a client that stays

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)

        headers = [
            (b"host", b"gateway"),
            (b"authorization", f"Bearer {key}".encode()),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": headers,
        }
        await self.gateway(scope, receive, send)
        return status

    async def forget(self) -> None:
        """What is in the outbox is acknowledged, so that it does not grow."""
        while entries := await self.ledger.outbox(5000):
            await self.ledger.ack([token for token, _ in entries])

    async def cost_us(self, bodies: Sequence[bytes], keys: Sequence[str] = (KEY,), times: int = 400) -> float:
        """CPU microseconds of one request: the least of several samples, each over all bodies and keys in turn."""
        for number in range(60):
            if await self.ask(bodies[number % len(bodies)], keys[number % len(keys)]) != 200:
                raise RuntimeError("the gateway refused what it was to be measured with")
        if not await self.ledger.outbox(1):
            raise RuntimeError("what was measured was not recorded")
        gc.collect()
        found: list[float] = []
        for sample in range(SAMPLES):
            began = time.process_time()
            for number in range(sample * times, sample * times + times):
                await self.ask(bodies[number % len(bodies)], keys[number % len(keys)])
            found.append((time.process_time() - began) / times * 1e6)
            await self.forget()
        return min(found)


@asynccontextmanager
async def inside(change: Change = lambda found: found, policies: str = CHEAP) -> AsyncIterator[Inside]:
    """Started with the settings of the benchmark as `change` leaves them."""
    with tempfile.TemporaryDirectory(prefix="tollgate-inside-") as folder:
        text = TOLLGATE.format(port=1, workers=1, folder=folder, provider=1, key=KEY, policies=policies, redis="null")
        found = change(settings.parse(text, {}))
        ledger = MemoryLedger()
        gateway = Gateway(lambda: found, ledger=ledger, transport=lambda _: Transport())
        async with running(gateway):
            await asyncio.sleep(0)
            yield Inside(gateway, ledger)


def with_deployments(count: int) -> Change:
    """So many candidates in the route."""

    def change(found: Settings) -> Settings:
        small = found.deployments["small"]
        more = {f"d{n}": structs.replace(small, id=f"d{n}") for n in range(count)}
        route = structs.replace(found.routes["auto"], candidates=tuple(more), baseline=None)
        return replace(found, deployments={**found.deployments, **more}, routes={"auto": route})

    return change


def with_budgets(count: int) -> Change:
    """So many limits that one request counts against, each on an account of its own."""

    def change(found: Settings) -> Settings:
        tenant = found.tenants[0]
        one = tenant.limits[0]
        tags = {f"team_{n}": f"t{n}" for n in range(count)}
        limits = tuple(structs.replace(one, account=f"tag:{name}", id=f"l_{name}") for name in tags)
        return replace(found, tenants=(structs.replace(tenant, limits=limits, tags=tags),))

    return change


def with_payers(tenants: int, keys: int) -> Change:
    """So many tenants, with the keys spread over them; the secret of key N is `secret(N)`."""

    def change(found: Settings) -> Settings:
        first = found.tenants[0]
        payers = tuple(structs.replace(first, id=f"tenant_{n}") for n in range(tenants))
        proofs = tuple(
            Key(f"k_{n}", payers[n % tenants].id, f"key {n}", hash_key(secret(n))) for n in range(max(keys, tenants))
        )
        return replace(found, tenants=payers, keys=proofs)

    return change


def secret(number: int) -> str:
    """Of the key that `with_payers` made."""
    return f"sk-bench-{number:08d}"

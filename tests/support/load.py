"""Requests at a steady rate over real sockets, and how each was answered; by itself a process that is nothing else.

python load.py URL KEY MODEL PER_SECOND SECONDS
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.dialects.base import Call
from gateway.transport.http1 import Pool
from gateway.types import Provider


def asking(model: str) -> bytes:
    """The body of a request."""
    messages = [{"role": "user", "content": "Say four words."}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 64}).encode()


class Seen(NamedTuple):
    """One request: seconds since the load began, seconds it took, and how it was answered."""

    at: float
    took: float
    status: int
    retry_after: str


@dataclass
class Load:
    """Requests at a steady rate, whatever becomes of them."""

    url: str
    key: str
    body: bytes
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        client = Provider("client", "openai", max_connections=2000)  # httpx would take more time than the gateway
        self.pool = Pool(client, ssl.create_default_context())

    async def run(self, per_s: float, seconds: float) -> None:
        now = asyncio.get_running_loop().time
        began, tasks = now(), []
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_s - now()))
            tasks.append(asyncio.create_task(self._one(began)))
        await asyncio.gather(*tasks)
        await self.pool.close()

    async def _one(self, start: float) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        async with await self.pool.send(Call(f"{self.url}/v1/chat/completions", self.body, headers)) as reply:
            await reply.body(1_000_000)
            self.seen.append(Seen(began - start, now() - began, reply.status, reply.header("retry-after")))

    def p99(self, after: float = 0.0, before: float = float("inf"), status: int = 200) -> float:
        took = [each.took for each in self.seen if after <= each.at < before and each.status == status]
        return statistics.quantiles(took, n=100)[98]


async def steady(url: str, key: str, model: str, per_s: float, seconds: float) -> list[Seen]:
    """One load, from its first request to its last reply."""
    load = Load(url, key, asking(model))
    await load.run(per_s, seconds)
    return load.seen


def main(url: str, key: str, model: str, per_s: str, seconds: str) -> None:
    """Prints how many were answered with which status."""
    seen = asyncio.run(steady(url, key, model, float(per_s), float(seconds)))
    print(json.dumps(Counter(each.status for each in seen)))


if __name__ == "__main__":
    main(*sys.argv[1:])

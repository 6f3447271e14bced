"""A provider with a prompt cache that is a real one: it reads the longest prefix it was sent lately, and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import orjson

from gateway.simulated import SimulatedTransport
from gateway.tokens import simulated_input_tokens
from gateway.types import Format

MINIMUM = 1024
BLOCK = 128
TTL_S = 300.0


class CachingProvider(httpx.AsyncBaseTransport):
    """The simulated provider behind it answers.  A model with `marked` in its name caches only what is marked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._simulated = SimulatedTransport()
        self._seen: dict[str, list[tuple[str, float]]] = {}

    def forget(self) -> None:
        """Everything it has been sent."""
        self._seen.clear()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(await request.aread())
        tokens = simulated_input_tokens(Format.CHAT, body)
        prompt = orjson.dumps([body.get("tools"), body["messages"]]).decode()
        cached = self._read(body["model"], prompt, tokens)
        body["metadata"] = {**body.get("metadata", {}), "sim_cached": str(cached / tokens)}
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        made = httpx.Request(request.method, request.url, headers=headers, content=orjson.dumps(body))
        return await self._simulated.handle_async_request(made)

    def _read(self, model: str, prompt: str, tokens: int) -> int:
        if "marked" in model and "cache_control" not in prompt:
            return 0
        now, seen = self._clock(), self._seen.setdefault(model, [])
        shared = max((_common(prompt, other) for other, until in seen if now < until), default=0)
        seen.append((prompt, now + TTL_S))
        found = int(tokens * shared / len(prompt)) // BLOCK * BLOCK
        return found if found >= MINIMUM else 0


def _common(one: str, other: str) -> int:
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def tool(name: str, words: int = 60) -> dict[str, Any]:
    """A function with some words to its name."""
    text = " ".join(f"{name} does the thing called {name}{index}." for index in range(words // 6))
    return {"type": "function", "function": {"name": name, "description": text, "parameters": {"type": "object"}}}

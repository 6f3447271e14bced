"""A gateway of this process on a real socket, as uvicorn serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from services import free_port

from gateway import settings
from gateway.app import Gateway, running
from gateway.types import Record


@dataclass
class Served:
    """A gateway that listens on `port`."""

    gateway: Gateway
    port: int
    client: httpx.AsyncClient
    records: list[Record] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Without /v1."""
        return f"http://127.0.0.1:{self.port}"

    async def chat(self, model: str, *, key: str, **fields: Any) -> httpx.Response:
        """One chat request."""
        body = {"model": model, "messages": [{"role": "user", "content": "Say four words."}], **fields}
        return await self.client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


@asynccontextmanager
async def served(text: str, *, app: Gateway | None = None) -> AsyncIterator[Served]:
    """A gateway under the settings in `text`, until the block ends."""
    app = app or Gateway(lambda: settings.parse(text, {}))
    port = free_port()
    async with running(app):
        server = uvicorn.Server(
            uvicorn.Config(app, port=port, lifespan="off", log_level="error", http="httptools", timeout_keep_alive=75)
        )
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        listening = asyncio.create_task(server._serve())
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.001)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as client:
            found = Served(app, port, client)
            observe = app.parts.metrics.observe

            def seen(record: Record, *rest: Any) -> None:
                found.records.append(record)
                observe(record, *rest)

            app.parts.metrics.observe = seen  # type: ignore[method-assign]
            yield found
        server.should_exit = True
        await listening

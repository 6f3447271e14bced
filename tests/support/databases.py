"""What the tests of SQL share: records, and a proxy before a real PostgreSQL that can refuse, hang and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from gateway.sql.database import engine
from gateway.sql.schema import records
from gateway.types import Bucket, Outcome, Record


def a_record(id_: str = "r1", **fields: Any) -> Record:
    """What a usual request leaves."""
    usual: dict[str, Any] = {
        "version": 1,
        "at": 1_789_560_000.25,
        "tenant": "acme",
        "key": "k_1",
        "endpoint": "chat",
        "model": "auto",
        "route": "auto",
        "deployment": "small",
        "provider": "simulated",
        "upstream_model": "sim-small",
        "outcome": Outcome.OK,
        "tokens": {Bucket.INPUT: 100, Bucket.CACHE_READ: 50, Bucket.OUTPUT: 20},
        "cost": 1_234,
        "components": {"input": 1_000, "cache_read": 34, "output": 200},
        "baseline_cost": 10_000,
        "reserved": 5_000,
        "tags": {"feature": "search"},
        "status": 200,
        "latency_ms": 900,
        "tokens_estimated": 148,
    }
    return Record(id=id_, **{**usual, **fields})


def stored(url: str) -> dict[str, dict[str, Any]]:
    """Every record in the database, by id."""
    made = engine(url, 1)
    with made.connect() as connection:
        found = {row["id"]: dict(row) for row in connection.execute(select(records)).mappings()}
    made.dispose()
    return found


def count(url: str) -> int:
    """How many records there are."""
    made = engine(url, 1)
    with made.connect() as connection:
        number: int = connection.execute(select(func.count()).select_from(records)).scalar_one()
    made.dispose()
    return number


class Proxy:
    """Stands between a client and a TCP server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._hung: list[asyncio.Event] = []
        self.port = 0

    async def open(self) -> None:
        """Accepts; on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """The server is gone: connections are cut, new ones refused."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def hang(self) -> None:
        """The connections there are stay, and nothing comes through them any more; new ones work."""
        self._flowing.clear()
        self._hung.append(self._flowing)
        self._flowing = asyncio.Event()
        self._flowing.set()

    def flow(self) -> None:
        """Everything comes through again."""
        for event in self._hung:
            event.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, far_writer]
        flowing = self._flowing
        both = (self._pump(reader, far_writer, flowing), self._pump(far_reader, writer, flowing))
        await asyncio.gather(*both, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        try:
            while data := await reader.read(65536):
                await flowing.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the database of that URL, and the URL that goes through it."""
    address = make_url(url)
    proxy = Proxy(address.host or "127.0.0.1", address.port or 5432)
    await proxy.open()
    through = address.set(host="127.0.0.1", port=proxy.port)
    try:
        yield proxy, through.render_as_string(hide_password=False)
    finally:
        proxy.flow()
        await proxy.refuse()

"""The SQL database is asked little and by few: on a real PostgreSQL, seen from the server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from databases import count
from harness import config, gateway
from sqlalchemy import Connection, text

from gateway.ledger.memory import MemoryLedger
from gateway.sql.database import Database, DatabaseUnavailable

CONNECTIONS = 3
"""Of one gateway: one writes records, two are for administrators, reports and jobs."""


@pytest.fixture
def name() -> str:
    """What the server knows the connections of one test by."""
    return f"tollgate-{secrets.token_hex(6)}"


@pytest.fixture
async def database(postgres_schema_url: str, name: str) -> AsyncIterator[Database]:
    found = Database(f"{postgres_schema_url}&application_name={name}")
    yield found
    found.close()


async def activity(url: str, name: str) -> list[str]:
    """What the connections of that name are at, as the server says."""

    def asked() -> list[str]:
        with psycopg.connect(url) as connection:
            found = connection.execute("select state from pg_stat_activity where application_name = %s", [name])
            return [state for (state,) in found]

    return await asyncio.to_thread(asked)


def sleep(connection: Connection, seconds: float) -> None:
    connection.execute(text("select pg_sleep(:seconds)"), {"seconds": seconds})


async def test_however_many_ask_at_once_there_are_two_connections(
    database: Database, postgres_schema_url: str, name: str
) -> None:
    asking = asyncio.gather(*(database.run(lambda connection: sleep(connection, 0.02)) for _ in range(40)))
    most = 0
    while not asking.done():
        most = max(most, len(await activity(postgres_schema_url, name)))
    await asking
    assert 1 <= most <= 2


async def test_what_takes_too_long_is_stopped_at_the_server_too(
    database: Database, postgres_schema_url: str, name: str
) -> None:
    with pytest.raises(DatabaseUnavailable):
        await database.run(lambda connection: sleep(connection, 600), timeout_s=0.3)
    async with asyncio.timeout(5):
        while "active" in await activity(postgres_schema_url, name):  # noqa: ASYNC110  # only the server can tell
            await asyncio.sleep(0.02)


async def test_what_nobody_waits_for_any_more_is_not_begun(database: Database) -> None:
    before = [asyncio.create_task(database.run(lambda connection: sleep(connection, 0.5))) for _ in range(2)]
    begun: list[Connection] = []
    await asyncio.sleep(0)
    with pytest.raises(DatabaseUnavailable):
        await database.run(begun.append, timeout_s=0.05)
    left = asyncio.create_task(database.run(begun.append))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(*before)
    await asyncio.gather(*(database.run(lambda connection: sleep(connection, 0.01)) for _ in range(4)))
    assert begun == []


async def test_reports_without_end_hold_up_neither_requests_nor_records(
    postgres_schema_url: str, name: str, tmp_path: Path
) -> None:
    url = f"{postgres_schema_url}&application_name={name}"
    settings = config(tmp_path).replace(f"sqlite:///{tmp_path}/tollgate.db", url)
    assert url in settings
    async with gateway(settings, ledger=MemoryLedger()) as running:
        database = running.gateway.store.database
        reports = [
            asyncio.create_task(database.run(lambda connection: sleep(connection, 600), timeout_s=20)) for _ in range(8)
        ]
        async with asyncio.timeout(10):
            while (await activity(postgres_schema_url, name)).count("active") < 2:  # noqa: ASYNC110  # only the server can tell
                await asyncio.sleep(0.01)
        replies = await asyncio.gather(*(running.chat("small", max_tokens=5) for _ in range(20)))
        assert {reply.status_code for reply in replies} == {200}
        async with asyncio.timeout(10):
            while await recorded(postgres_schema_url) < 20:  # noqa: ASYNC110  # only the server can tell
                await asyncio.sleep(0.02)
        assert not any(report.done() for report in reports)
        assert len(await activity(postgres_schema_url, name)) <= CONNECTIONS
        for report in reports:
            report.cancel()
        await asyncio.gather(*reports, return_exceptions=True)


async def recorded(url: str) -> int:
    return await asyncio.to_thread(count, url)

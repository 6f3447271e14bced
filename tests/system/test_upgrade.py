"""An upgrade with live traffic: older gateways go on while a newer one changes the schema and takes over."""

from __future__ import annotations

import asyncio
import io
import signal
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from processes import GatewayProcess, SimulatedProcess
from services import RedisServer

from gateway.dialects.base import Call
from gateway.sql.database import engine
from gateway.sql.migrate import config
from gateway.transport.http1 import Pool
from gateway.types import Provider

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
VERSIONS = "gateway/sql/migrations/versions"
REQUESTS = 60
WRITES_BEFORE, WRITES_AFTER = 20, 20
CONFIG = """
database: {database}
redis: {redis}
spool: {{folder}}/spool
ledger: {{timeout_s: 2.0}}
admin_key: test-admin-key
providers:
  p: {{dialect: openai, base_url: "{url}/v1", api_key: sk-x}}
deployments:
  - {{id: quick, provider: p, upstream_model: "sim?first_token_ms=5&output=5", price: {{input: 1, output: 1}},
      output_max: 100}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""
EMPTY = {sa.Boolean: False, sa.Integer: 1, sa.BigInteger: 0, sa.Double: 0.0, sa.Float: 0.0, sa.Text: "", sa.String: ""}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One whose outbox no other gateway empties."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def revisions(connection: sa.Connection) -> list[str]:
    """Of the schema, oldest first."""
    scripts = ScriptDirectory.from_config(config(connection))
    return [script.revision for script in reversed(list(scripts.walk_revisions()))]


def migrated(url: str, revision: str) -> sa.Table:
    """Brings the schema to this revision; the table of records as a gateway of that time knows it."""
    made = engine(url, 1)
    try:
        with made.connect() as connection, connection.begin():
            command.upgrade(config(connection), revision)
        return sa.Table("records", sa.MetaData(), autoload_with=made)
    finally:
        made.dispose()


def record(table: sa.Table, id_: str) -> dict[str, Any]:
    """A row with every column that this version of the table has and that wants a value."""

    def value(column: sa.Column[Any]) -> Any:
        if column.name == "id":
            return id_
        kind = next((empty for kind, empty in EMPTY.items() if isinstance(column.type, kind)), None)
        return {} if kind is None else kind

    return {column.name: value(column) for column in table.columns if not column.nullable}


def test_gateways_of_every_older_version_can_go_on_writing_records(postgres_schema_url: str) -> None:
    made = engine(postgres_schema_url, 1)
    with made.connect() as connection:
        known = revisions(connection)
    tables = [migrated(postgres_schema_url, revision) for revision in known]
    with made.connect() as connection, connection.begin():
        for revision, table in zip(known, tables, strict=True):
            connection.execute(table.insert(), record(table, f"written-by-{revision}"))
        assert connection.execute(sa.text("select count(*) from records")).scalar() == len(known) > 5
    made.dispose()


class OldGateway(threading.Thread):
    """Writes records as a gateway of the older version does, one after the other, until it is told to stop."""

    def __init__(self, url: str, table: sa.Table) -> None:
        super().__init__()
        self.engine, self.table = engine(url, 1), table
        self.written: list[str] = []
        self.failed: list[Exception] = []
        self.enough = threading.Semaphore(0)
        self.stopping = threading.Event()

    def run(self) -> None:
        """Each record in a transaction of its own."""
        while not self.stopping.wait(0.005):
            id_ = f"old-{len(self.written)}"
            try:
                with self.engine.begin() as connection:
                    connection.execute(self.table.insert(), record(self.table, id_))
            except sa.exc.SQLAlchemyError as error:
                self.failed.append(error)
                return
            self.written.append(id_)
            self.enough.release()
        self.engine.dispose()

    def wrote(self, more: int) -> None:
        """Returns when it has written so many more."""
        for _ in range(more):
            assert self.enough.acquire(timeout=30), self.failed


async def ask(pool: Pool, url: str, number: int) -> int:
    text = f"Question {number}"
    body = orjson.dumps({"model": "quick", "messages": [{"role": "user", "content": text}], "max_tokens": 5})
    headers = {"authorization": "Bearer key-of-acme", "content-type": "application/json"}
    async with await pool.send(Call(f"{url}/v1/chat/completions", body, headers)) as reply:
        async for _ in reply.chunks():
            pass
        return reply.status


async def load(url: str) -> list[int]:
    pool = Pool(Provider("client", "openai"), ssl.create_default_context())
    found = [await ask(pool, url, number) for number in range(REQUESTS)]
    await pool.close()
    return found


def count(url: str, where: str) -> int:
    made = engine(url, 1)
    with made.connect() as connection:
        found: int = connection.execute(sa.text(f"select count(*) from records where {where}")).scalar_one()
    made.dispose()
    return found


@pytest.mark.slow
def test_a_newer_gateway_takes_over_the_schema_under_traffic_and_nothing_is_lost(
    start: Any, provider: SimulatedProcess, postgres_schema_url: str, own_redis: RedisServer
) -> None:
    made = engine(postgres_schema_url, 1)
    with made.connect() as connection:
        before = revisions(connection)[-3]
    made.dispose()
    old = OldGateway(postgres_schema_url, migrated(postgres_schema_url, before))
    old.start()
    try:
        old.wrote(WRITES_BEFORE)
        gateway: GatewayProcess = start(
            CONFIG.format(url=provider.url, database=postgres_schema_url, redis=own_redis.url)
        )
        statuses = asyncio.run(load(gateway.url))
        old.wrote(WRITES_AFTER)
    finally:
        old.stopping.set()
        old.join()
    assert gateway.stop() in {0, -signal.SIGTERM}
    assert not old.failed
    assert statuses == [200] * REQUESTS
    assert count(postgres_schema_url, "tenant = 'acme' and cost > 0") == REQUESTS
    assert count(postgres_schema_url, "id like 'old-%'") == len(old.written) >= WRITES_BEFORE + WRITES_AFTER


NEWEST = max(path.stem.partition("_")[0].removeprefix("v") for path in (ROOT / VERSIONS).glob("v*.py"))


def schema_of(url: str) -> str:
    made = engine(url, 1)
    with made.connect() as connection:
        found: str = connection.execute(sa.text("select version_num from alembic_version")).scalar_one()
    made.dispose()
    return found


@pytest.fixture(scope="session")
def before_the_schema_changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code as it was just before the newest migration."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout

    folder = tmp_path_factory.mktemp("older")
    try:
        changed = git("log", "-1", "--format=%H", "--", VERSIONS).decode().strip()
        packed = git("archive", f"{changed}^", "gateway", "router_policies")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"the history is not here, so no older version can be run: {error}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


class Balancer:
    """Sends to each gateway in turn, and to none that has said that it leaves."""

    def __init__(self, *gateways: GatewayProcess) -> None:
        self.urls = [gateway.url for gateway in gateways]
        self.statuses: list[int] = []
        self._pool = Pool(Provider("client", "openai"), ssl.create_default_context())

    async def send(self, requests: int, *, until_left: bool = False) -> None:
        """So many more at least, one after the other; `until_left`: until one of the gateways has said so."""
        count, serving = 0, len(self.urls)
        while count < requests or (until_left and len(self.urls) == serving):
            count += 1
            url = self.urls[count % len(self.urls)]
            body = {"model": "quick", "messages": [{"role": "user", "content": f"Question {count}"}], "max_tokens": 5}
            headers = {"authorization": "Bearer key-of-acme", "content-type": "application/json"}
            call = Call(f"{url}/v1/chat/completions", orjson.dumps(body), headers)
            async with await self._pool.send(call) as reply:
                async for _ in reply.chunks():
                    pass
                self.statuses.append(reply.status)
                if reply.headers.get("connection") == "close":
                    self.urls.remove(url)

    async def close(self) -> None:
        await self._pool.close()


@pytest.mark.slow
async def test_the_version_before_hands_over_to_this_one_under_traffic_and_every_nano_dollar_is_kept(
    start: Any,
    provider: SimulatedProcess,
    postgres_schema_url: str,
    own_redis: RedisServer,
    before_the_schema_changed: Path,
) -> None:
    config = CONFIG.format(url=provider.url, database=postgres_schema_url, redis=own_redis.url)
    older: GatewayProcess = start(config, env={"PYTHONPATH": str(before_the_schema_changed)})
    traffic = Balancer(older)
    await traffic.send(REQUESTS)
    assert schema_of(postgres_schema_url) != NEWEST
    newer_starts = asyncio.create_task(asyncio.to_thread(start, config))
    while not newer_starts.done():
        await traffic.send(1)
    newer: GatewayProcess = await newer_starts
    traffic.urls.append(newer.url)
    assert schema_of(postgres_schema_url) == NEWEST
    await traffic.send(REQUESTS)
    older.running.signal(signal.SIGTERM)
    await traffic.send(REQUESTS, until_left=True)
    await asyncio.to_thread(older.running.process.wait, 60)
    await traffic.send(REQUESTS)
    await traffic.close()
    assert traffic.urls == [newer.url]
    assert set(traffic.statuses) == {200}
    assert newer.stop() in {0, -signal.SIGTERM}
    assert count(postgres_schema_url, "tenant = 'acme' and cost > 0") == len(traffic.statuses)
    assert newer.cli("ledger", "verify") == "1 accounts compared, 0 differ, 0 of them unexplained.\n"

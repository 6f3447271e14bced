"""The three keepers, and Redis once more as if it were a cluster."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ledgers import Clock, Keeper

from gateway.ledger.base import Ledger
from gateway.ledger.memory import MemoryLedger
from gateway.ledger.open import open_redis
from gateway.ledger.sqlite import SqliteLedger

PATIENT = {"timeout_s": 5.0, "connect_timeout_s": 5.0}  # a busy machine is not what these tests are about


@pytest.fixture(params=["memory", "sqlite", "redis", "redis-split", "redis-cluster"])
async def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    clock = Clock()
    if request.param == "memory":
        only = MemoryLedger(clock=clock)
        keeper = Keeper("memory", lambda: only, clock)
    elif request.param == "sqlite":
        keeper = Keeper("sqlite", lambda: SqliteLedger(tmp_path / "ledger.db", clock=clock), clock)
    elif request.param == "redis-cluster":
        url = request.getfixturevalue("redis_cluster")[0].url.replace("redis://", "redis+cluster://")
        options = {"prefix": f"{secrets.token_hex(6)}:", "clock": clock, **PATIENT}
        keeper = Keeper(request.param, lambda: open_redis(url, **options), clock)
    else:
        url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
        options = {"prefix": prefix, "clock": clock, "split": request.param == "redis-split", **PATIENT}
        keeper = Keeper(request.param, lambda: open_redis(url, **options), clock)
    yield keeper
    await keeper.close()


@pytest.fixture
def ledger(keeper: Keeper) -> Ledger:
    return keeper.open()


@pytest.fixture
def clock(keeper: Keeper) -> Clock:
    return keeper.clock

"""A Redis Cluster beyond the contract: one slow node is slow only for its own shards."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time

import pytest
from ledgers import PROVIDER, figures, hold, line
from msgspec import structs
from services import RedisServer

from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Reservation
from gateway.ledger.open import open_redis
from gateway.types import Account


def of_tenant(number: int) -> Reservation:
    tenant = f"t{number}"
    return structs.replace(hold(f"r{number}", line(10, 1000, account=Account("tenant", tenant, tenant))), tenant=tenant)


async def test_a_node_that_hangs_delays_only_its_own_tenants(redis_cluster: list[RedisServer]) -> None:
    url = redis_cluster[0].url.replace("redis://", "redis+cluster://")
    ledger = open_redis(url, prefix="hang:")
    await ledger.ping()
    redis_cluster[2].signal(signal.SIGSTOP)
    try:
        answers = await asyncio.gather(
            *(ledger.reserve(of_tenant(number)) for number in range(60)), return_exceptions=True
        )
    finally:
        redis_cluster[2].signal(signal.SIGCONT)
    failed = [answer for answer in answers if isinstance(answer, LedgerUnavailable)]
    assert 0 < len(failed) < 40
    assert all(isinstance(answer, list | LedgerUnavailable) for answer in answers)
    async with asyncio.timeout(10):
        while True:
            try:
                left = [(await figures(ledger, of_tenant(number).lines[0]))[1] for number in range(60)]
            except LedgerUnavailable:
                await asyncio.sleep(0.01)
                continue
            if sum(left) == 10 * (60 - len(failed)):
                break
    await ledger.close()


async def test_a_cluster_that_hangs_as_a_whole_costs_one_deadline_and_then_nothing(
    redis_cluster: list[RedisServer],
) -> None:
    ledger = open_redis(redis_cluster[0].url.replace("redis://", "redis+cluster://"), prefix="dead:")
    await asyncio.gather(*(ledger.release(of_tenant(number)) for number in range(20)))  # knows every node
    for node in redis_cluster:
        node.signal(signal.SIGSTOP)
    try:
        took = []
        for number in range(200):
            began = time.perf_counter()
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(of_tenant(number % 20))
            took.append(time.perf_counter() - began)
    finally:
        for node in redis_cluster:
            node.signal(signal.SIGCONT)
    assert max(took) < 0.5
    assert statistics.median(took) < 0.01
    async with asyncio.timeout(20):
        while True:
            try:
                await ledger.ping()
            except LedgerUnavailable:
                await asyncio.sleep(0.01)  # a reconnection happens on the real clock
            else:
                break
    await asyncio.gather(*(ledger.reserve(of_tenant(number)) for number in range(20, 40)))
    await ledger.close()


async def test_a_reservation_over_two_nodes_is_all_or_none(redis_cluster: list[RedisServer]) -> None:
    url = redis_cluster[1].url.replace("redis://", "redis+cluster://")
    ledger = open_redis(url, prefix="both:", timeout_s=5.0)
    shared = line(10, 95, account=PROVIDER)
    holds = [structs.replace(of_tenant(number), lines=(of_tenant(number).lines[0], shared)) for number in range(40)]
    answers = await asyncio.gather(*(ledger.reserve(each) for each in holds), return_exceptions=True)
    assert sum(isinstance(answer, list) for answer in answers) == 9
    own = [(await figures(ledger, each.lines[0]))[1] for each in holds]
    assert sum(own) == 90
    assert await figures(ledger, shared) == (0, 90)
    await ledger.close()

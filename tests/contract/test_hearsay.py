"""What one worker finds of a deployment, the others hear through a real Redis."""

from __future__ import annotations

import secrets
import time

import pytest
from redis.exceptions import RedisError

from gateway.health import IN_A_ROW, Health
from gateway.hearsay import Hearsay


async def test_an_open_circuit_is_heard_and_closes_when_its_time_has_passed(redis_url: str) -> None:
    wall, key = [time.time()], f"test:{secrets.token_hex(6)}"
    one, other = Health(), Health()
    tells = Hearsay(redis_url, one, lambda: 100.0, lambda: wall[0], key)
    hears = Hearsay(redis_url, other, lambda: 7000.0, lambda: wall[0], key)
    for _ in range(IN_A_ROW):
        one.of("d").failed(100.0)
    await tells.exchange()
    await hears.exchange()
    assert not other.of("d").circuit.admits(7000.0)
    assert other.of("d").circuit.wait_s(7000.0) == pytest.approx(one.of("d").circuit.wait_s(100.0), abs=0.01)
    wall[0] += 60
    third = Health()
    await Hearsay(redis_url, third, lambda: 0.0, lambda: wall[0], key).exchange()
    assert third.of("d").circuit.admits(0.0)


async def test_without_a_redis_nothing_is_heard_and_nothing_is_lost() -> None:
    health = Health()
    with pytest.raises((RedisError, OSError)):
        await Hearsay("redis://127.0.0.1:1", health, lambda: 0.0).exchange()
    assert health.conditions == {}

"""What workers tell each other of deployments, through Redis: which circuits are open, and until when.

Once a second and never on the path of a request.  Without a Redis, or while it is away, every worker finds out for
itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from gateway.health import Health
from gateway.ledger.sentinel import Watched

KEY = "tollgate:circuits"
EVERY_S = 1.0
TIMEOUT_S = 0.5


class Hearsay:
    """One per worker.  `now` is health's clock, `wall` (unix seconds) is the one that machines share."""

    def __init__(
        self, url: str, health: Health, now: Callable[[], float], wall: Callable[[], float] = time.time, key: str = KEY
    ) -> None:
        self._health, self._now, self._wall, self._key = health, now, wall, key
        self._redis = _client(url)

    async def exchange(self) -> None:
        """Tells what is open here and hears what is elsewhere.  Raises RedisError, OSError."""
        wall = self._wall()
        told = await self._redis.hgetall(self._key)
        until = {name.decode(): float(value) for name, value in told.items()}
        if past := [name for name, value in until.items() if value <= wall]:
            await self._redis.hdel(self._key, *past)
        ours = {name: wall + seconds for name, seconds in self._health.opened(self._now()).items()}
        if news := {name: value for name, value in ours.items() if value > until.get(name, 0.0)}:
            await self._redis.hset(self._key, mapping=news)
        self._health.heard(self._now(), {name: value - wall for name, value in until.items() if value > wall})

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with suppress(RedisError, OSError, asyncio.TimeoutError):
                    await self.exchange()
                await asyncio.sleep(EVERY_S)
        finally:
            with suppress(RedisError, OSError):
                await self._redis.aclose()


def _client(url: str) -> Any:  # noqa: ANN401 - the types of redis-py's clients differ in words only
    if url.partition("://")[0].endswith("+sentinel"):
        return Watched.parse(url).client(TIMEOUT_S)
    kind: Any = RedisCluster if "+cluster" in url else Redis
    return kind.from_url(url.replace("+cluster", ""), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)

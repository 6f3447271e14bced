"""What runs beside the requests until the end, whatever goes wrong in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger()

AGAIN_S = 1.0
Chore = Callable[[], Coroutine[Any, Any, None]]
"""Begins what goes on until it is cancelled."""


class Chores:
    """Each in a task of its own.  One that breaks off is told in the log and begun again."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, chore: Chore) -> None:
        """Runs it until `end`."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._lasting(chore)))

    async def end(self) -> None:
        """Returns when all have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lasting(self, chore: Chore) -> None:
        while True:
            try:
                return await chore()
            except Exception:
                log.exception("what runs beside the requests broke off, and begins again")
            await self._sleep(AGAIN_S)

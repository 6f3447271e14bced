"""What is kept of requests so that routing can be learned from them, and what was learned of answers' lengths.

Of a request, where learning is switched on: a reading, numbers in place of words (see `Read`), never a word of it.  Of
each deployment: how much it says and thinks, so that a restart does not forget it.  Nothing on the path of a request
waits for any of this: it is written in batches beside it, and left out where the database is away for long.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import structlog

from gateway.configuration.schema import Learning
from gateway.habits import Habits
from gateway.sql.database import Database, DatabaseUnavailable
from gateway.sql.lessons import Lesson, forget, habits_of, keep, keep_habits
from gateway.types import Outcome

if TYPE_CHECKING:
    from gateway.exchange import Exchange

log = structlog.get_logger()

WAITING_MAX = 2_000
"""Readings that wait for the database; past it the oldest are lost, which costs lessons and nothing else."""
EVERY_S = 5.0
HABITS_EVERY_S = 60.0
FORGET_EVERY_S = 3600.0
DAY_S = 86_400.0

JUDGED_WELL = "cascade: judged well"
POOR = frozenset(
    f"cascade: escalated, {reason}"
    for reason in ("refusal", "empty", "invalid_schema", "invalid_tool_call", "judged_poor")
)
"""Reasons of a plan that tell of an answer's quality."""

Read = Callable[[Mapping[str, Any], str], tuple[tuple[int, ...], tuple[float, ...], int] | None]
"""(body, salt) -> words as numbers, shape, and characters; None: there is nothing to read."""


class Lessons:
    """One per process.  `wanted` says whose requests are learned from; None: nobody's.  `clock`: unix seconds."""

    def __init__(
        self,
        database: Database,
        habits: Habits,
        read: Read,
        wanted: Callable[[], Learning | None],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._habits = habits
        self._read = read
        self._wanted = wanted
        self._clock = clock
        self._sleep = sleep
        self._waiting: deque[Lesson] = deque(maxlen=WAITING_MAX)
        self._habits_at = clock()
        self._forgot_at = 0.0

    def keep(self, exchange: Exchange) -> None:
        """Reads the request if it may be learned from.  It has been answered."""
        wanted, route, request = self._wanted(), exchange.route, exchange.request
        if wanted is None or route is None or exchange.outcome() is not Outcome.OK:
            return
        if not _named(route.id, wanted.routes) or not _named(exchange.tenant.id, wanted.tenants):
            return
        found = self._read(request.body, wanted.salt)
        if found is not None:
            told = verdicts(exchange)
            self._waiting.append(
                Lesson(request.id, request.received, exchange.tenant.id, route.id, *found, verdicts=told)
            )

    async def recall(self) -> None:
        """Begins with the habits that were known before.  A database that is away begins with none."""
        try:
            for deployment, known in (await self._database.run(habits_of)).items():
                self._habits.recall(deployment, known)
        except DatabaseUnavailable as error:
            log.warning("habits not read", reason=str(error))

    async def run(self) -> None:
        """Until cancelled: writes what has come."""
        while True:
            await self._sleep(EVERY_S)
            try:
                await self.flush()
            except Exception:  # it must outlive every error: lessons wait, and the oldest make room
                log.exception("lessons not written", count=len(self._waiting))

    async def flush(self, *, last: bool = False) -> None:
        """Writes what waits; habits and what is too old every now and then, or now if it is the `last` time."""
        now, some = self._clock(), list(self._waiting)
        try:
            if some:
                await self._database.run(lambda connection: keep(connection, some), write=True)
                for lesson in some:
                    if self._waiting and self._waiting[0] is lesson:
                        self._waiting.popleft()
            if last or now - self._habits_at >= HABITS_EVERY_S:
                await self._keep_habits(now)
            wanted = self._wanted()
            if wanted is not None and now - self._forgot_at >= FORGET_EVERY_S:
                before = now - wanted.keep_days * DAY_S
                await self._database.run(lambda connection: forget(connection, before), write=True)
                self._forgot_at = now
        except DatabaseUnavailable as error:
            log.info("lessons wait", count=len(self._waiting), reason=str(error))

    async def _keep_habits(self, now: float) -> None:
        known = self._habits.told()
        if known:
            await self._database.run(lambda connection: keep_habits(connection, known, now), write=True)
        self._habits_at = now


def verdicts(exchange: Exchange) -> dict[str, float]:
    """What the judge of a cascade found of whose answer, as far as that says how good it was.

    Two answers that disagree, one that came too late, was cut off or is unsure say nothing; nor does one in which only
    nothing wrong was seen.
    """
    reasons = exchange.plan.reasons
    if JUDGED_WELL in reasons:
        return {exchange.step.deployment.id: 1.0}
    tried = [trial.step.deployment.id for trial in exchange.trials if not trial.step.judging]
    return {tried[-1]: 0.0} if tried and POOR & set(reasons) else {}


def _named(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

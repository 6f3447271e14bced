"""Tells a Redis what it has forgotten, before tenants with hard caps are served again.

    blank     all is gone (emptied, or restarted without data): one gateway brings what its disk has to SQL, and writes
              what SQL says was spent
    doubtful  restored, restarted with data, or failed over: every gateway tells it what it has open and has settled of
              late; what is known already changes nothing
    ready     `GRACE_S` later, when the other gateways have done so too, reservations are taken again

Until then a reservation is refused as if the ledger were away.  A gateway that was stopped meanwhile tells its part
when it wakes.  What only a gateway knew that died at the same time is lost to the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Line, Reservation
from gateway.ledger.past import Past, Spend, Standing
from gateway.ledger.windows import span
from gateway.settlements import Settlements
from gateway.sql.database import Database, DatabaseUnavailable
from gateway.sql.totals import Total, Wanted, totals
from gateway.types import Limit, Unit

log = structlog.get_logger()

LOOK_S = 0.5
GRACE_S = 3.0
"""More than another gateway needs to connect again and to look."""
IDS_S = 1800.0
"""How far back ids are told: longer than any request lasts and any record takes to SQL while SQL is up; and as far as
what this gateway knows, which may have waited for a Redis that was away."""
LAG_S = 12.0
"""How long what was settled is kept after it is known to be in SQL: a replica that takes over may lack that much.
Redis itself does not count a replica that lags by more than ten seconds (`min-replicas-max-lag`)."""
READ_S = 60.0
ADOPTED_AT_ONCE = 200

Owned = tuple[Limit, str]
"""A limit and the tenant whose it is, "" for everyone's."""
Lasting = tuple[list[Reservation], list[tuple[str, str]]]
"""What is held for longer than a gateway lives, and (tenant, id) of what of it is settled: SQL knows both."""


async def nothing() -> Lasting:
    """No batches."""
    return [], []


class Rebuild:
    """One per process; `watch` runs beside the requests.  `limits` gives all in force, `lasting` what batches hold."""

    def __init__(
        self,
        past: Past,
        settlements: Settlements,
        database: Database,
        limits: Callable[[], Iterable[Owned]],
        *,
        lasting: Callable[[], Awaitable[Lasting]] = nothing,
        unspool: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._past = past
        self._lasting = lasting
        self._unspool = unspool
        self._settlements = settlements
        self._database = database
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._told = ""  # the epoch that knows all this gateway knows
        self._admit_at = 0.0
        self._alone = False
        self._failing = False

    async def begin(self, within_s: float) -> None:
        """Returns when the ledger takes reservations, or after `within_s` all the same."""
        ends = self._clock() + within_s
        while self._clock() < ends and not await self._try():
            await self._sleep(LOOK_S / 5)

    async def watch(self) -> None:
        """Until cancelled: looks, and does what is to be done."""
        while True:
            await self._sleep(LOOK_S)
            await self._try()

    async def step(self) -> bool:
        """One look; True when the ledger takes reservations and knows all that this gateway knows.

        Raises LedgerUnavailable, DatabaseUnavailable.
        """
        began = self._clock()
        oldest = await self._past.oldest()
        standing = await self._past.look()
        if standing.blank:
            await self._restore(standing)
            return False
        if standing.epoch != self._told:
            await self._tell(standing)
        elif standing.ready:
            stored = began if oldest is None else min(began, oldest)
            self._settlements.confirm(stored - LAG_S)
        if not standing.ready and self._clock() >= self._admit_at:
            await self._past.admit()
            self._told = (await self._past.look()).epoch
            log.warning("the ledger takes reservations again")
            return True
        return standing.ready

    async def _try(self) -> bool:
        try:
            ready = await self.step()
        except (LedgerUnavailable, DatabaseUnavailable) as error:
            if not self._failing:
                log.warning("the ledger cannot be looked at", reason=str(error))
            self._failing = True
            return False
        self._failing = False
        return ready

    async def _restore(self, standing: Standing) -> None:
        if not await self._past.claim():
            return
        try:
            await self._unspool()
            now = self._clock()
            wanted = list(windows(self._limits(), now))
            since = min(now - IDS_S, self._settlements.oldest())
            found, ids = await self._database.run(
                lambda connection: totals(connection, wanted, since), timeout_s=READ_S
            )
            held, settled = await self._lasting()
            for at in range(0, len(held), ADOPTED_AT_ONCE):
                await asyncio.gather(*(self._past.adopt(each) for each in held[at : at + ADOPTED_AT_ONCE]))
            await self._past.restore(standing.blank, [_spend(each, now) for each in found], [*ids, *settled])
        finally:
            await self._past.disclaim()
        log.warning("the ledger had forgotten everything and was told from SQL", accounts=len(found), settled=len(ids))
        self._alone = not ids  # nobody was served of late: there is no other gateway to wait for

    async def _tell(self, standing: Standing) -> None:
        told = await self._settlements.replay(self._past.adopt)
        if not standing.ready:
            self._admit_at = self._clock() + (0.0 if self._alone else GRACE_S)
            self._alone = False
        if told:
            log.info("the ledger was told what this gateway knows", holds_and_settlements=told)
        self._told = standing.epoch


@dataclass(frozen=True, slots=True)
class _Counter:
    """Limits of one counter are one question."""

    account: str
    of: str
    unit: Unit
    window: str
    owner: str


def windows(limits: Iterable[Owned], now: float) -> Iterable[Wanted]:
    """What to ask the records for, once for each counter that the limits have now."""
    seen: set[_Counter] = set()
    for limit, owner in limits:
        counter = _Counter(limit.account, limit.of, limit.unit, repr(limit.window), owner)
        if limit.unit is Unit.CONCURRENT or counter in seen:
            continue
        seen.add(counter)
        its = span(limit.window, int(now * 1000))
        since = its.first(int(now * 1000)) * its.step / 1000 if its.step else its.start / 1000
        yield Wanted(limit, owner, since, its.step / 1000)


def _spend(total: Total, now: float) -> Spend:
    return Spend(Line(total.account, total.limit, 0), int((total.at or now) * 1000), total.spent)

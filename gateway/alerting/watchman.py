"""Looks for what is worth an alert, beside the requests, and tells it once per window: log, metric, webhooks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from gateway.alerting import alerts
from gateway.alerting.alerts import Alert
from gateway.alerting.webhooks import Webhooks
from gateway.configuration.schema import Alerts
from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Ledger, Line
from gateway.metrics import Metrics
from gateway.rebuild import Owned, windows
from gateway.sql.database import Database, DatabaseUnavailable
from gateway.sql.outcomes import agreements
from gateway.sql.totals import totals
from gateway.sql.trends import activity, my_turn, told
from gateway.types import Unit

log = structlog.get_logger()

TOLD_MAX = 10_000
READ_S = 30.0
BY_RECORDS = frozenset({"key", "user", "task", "team", "model"})
"""Accounts too many to ask the ledger for: those that spent anything are found in the records."""


class Watchman:
    """One per process.  `shared` gives the lines whose accounts are few, `limits` all limits in force."""

    def __init__(
        self,
        ledger: Ledger,
        database: Database,
        metrics: Metrics,
        webhooks: Webhooks,
        *,
        wanted: Callable[[], Alerts],
        shared: Callable[[], Sequence[Line]],
        limits: Callable[[], Iterable[Owned]],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._metrics = metrics
        self._webhooks = webhooks
        self._wanted = wanted
        self._shared = shared
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._told: set[str] = set()
        self._trends_at = 0.0

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(self._wanted().every_s)
            try:
                await self.look()
            except (LedgerUnavailable, DatabaseUnavailable) as error:
                log.info("alerts not looked for", reason=str(error))

    async def look(self) -> None:
        """Once.  Raises LedgerUnavailable, DatabaseUnavailable: what is to be told is told the next time."""
        wanted, now = self._wanted(), self._clock()
        found = list(alerts.budgets(await self._ledger.balances(list(self._shared())), wanted, now))
        if now - self._trends_at >= wanted.trends_every_s:
            self._trends_at = now
            found += await self._slower(wanted, now)
        for alert in found:
            if alert.id not in self._told:
                await self._tell(alert, wanted, now)

    async def _slower(self, wanted: Alerts, now: float) -> list[Alert]:
        """What only the records tell: one replica asks them."""
        turn = wanted.trends_every_s * 0.9
        if not await self._database.run(lambda connection: my_turn(connection, now, turn), write=True):
            return []
        rows = await self._database.run(lambda connection: activity(connection, now), timeout_s=READ_S)
        found = list(alerts.trends(rows, wanted, now))
        pairs = await self._database.run(lambda connection: agreements(connection, now), timeout_s=READ_S)
        found += alerts.drift(pairs, wanted, now)
        many = [each for each in self._limits() if each[0].unit is Unit.COST and _many(each[0].account)]
        if many:
            asked = list(windows(many, now))
            sums, _ = await self._database.run(lambda connection: totals(connection, asked, now), timeout_s=READ_S)
            lines = [Line(each.account, each.limit, 0) for each in sums]
            found += alerts.budgets(await self._ledger.balances(lines), wanted, now)
        return found

    async def _tell(self, alert: Alert, wanted: Alerts, now: float) -> None:
        row = {"id": alert.id, "at": now, "kind": alert.kind, "subject": alert.subject, "facts": dict(alert.facts)}
        new = await self._database.run(lambda connection: told(connection, row), write=True)
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told.add(alert.id)
        if new:
            self._metrics.alerted(alert.kind, "raised")
            log.warning("alert", kind=alert.kind, subject=alert.subject, text=alert.text)
            self._webhooks.send(alert, wanted.webhooks, now)


def _many(kind: str) -> bool:
    return kind in BY_RECORDS or kind.startswith("tag:")

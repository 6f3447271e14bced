"""Sums by hour that stand for records in reports: always exact, sooner or later quick.

Whoever writes records marks their hours as stale, in the same transaction; a report reads stale hours record by record
and the others from the sums.  A sum is made anew by taking the mark away first: a writer who comes meanwhile waits for
the mark, so that no record is ever in neither.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy import Connection, delete, insert, select

from gateway.sql import by_day
from gateway.sql.database import Database, DatabaseUnavailable
from gateway.sql.figures import ROLLED, TAGS, TIMES, column, sums
from gateway.sql.schema import hourly, records, stale_hours
from gateway.sql.stale import outdated

SETTLED_S = 300.0
"""An hour is summed this long after its end: until then most of its records still come."""
HOURS_AT_ONCE = 48

_NAMES = sorted(ROLLED - TIMES)
_COLUMNS = ["hour", *(TAGS.get(name, name) for name in _NAMES)]


def renew(connection: Connection, hour: int) -> None:
    """Sums the records of one hour.  Needs a transaction that writes."""
    connection.execute(delete(stale_hours).where(stale_hours.c.hour == hour))
    connection.execute(delete(hourly).where(hourly.c.hour == hour))
    groups = [records.c.hour, *(column(name, records) for name in _NAMES)]
    figures = sums(records)
    query = select(*groups, *figures).where(records.c.at >= hour * 3600, records.c.at < (hour + 1) * 3600)
    names = [*_COLUMNS, *(figure.name for figure in figures)]
    connection.execute(insert(hourly).from_select(names, query.group_by(*groups)))


def due(connection: Connection, now: float, count: int) -> list[int]:
    """Stale hours that are over for a while, newest first, at most `count`."""
    return outdated(connection, until=int((now - SETTLED_S) // 3600))[::-1][:count]


async def keep(database: Database, rest_s: float = 60.0, clock: Callable[[], float] = time.time) -> None:
    """Until cancelled: sums hours that are over, one short transaction each.  A database that is away waits."""
    while True:
        await asyncio.sleep(rest_s)
        with suppress(DatabaseUnavailable):
            for hour in await database.run(partial(due, now=clock(), count=HOURS_AT_ONCE)):
                await database.run(partial(renew, hour=hour), write=True)
                await asyncio.sleep(rest_s / HOURS_AT_ONCE)  # whoever writes records meanwhile is not held up
            for day in await database.run(partial(by_day.due, now=clock())):
                with suppress(by_day.Overtaken):
                    await database.run(partial(by_day.renew, day=day), write=True, timeout_s=by_day.RENEW_S)
                await asyncio.sleep(rest_s / HOURS_AT_ONCE)

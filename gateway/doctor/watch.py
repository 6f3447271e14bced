"""Looks at answers whose prompts were hardly read from a cache, two a second, beside the path of requests.

On the path: a comparison and, for what will be looked at, one entry in a short queue.  What there was no time to look
at counts as what is looked at next of the same tenant, route and deployment: figures are estimates.  Nothing of a
prompt is kept but salted hashes in memory, of at most six prompts for each of 128 (tenant, route); what is written down
is the kind of cause, its place, and how much.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from gateway.doctor.diagnosis import ALIKE_SHARE, FULL_SHARE, Finding, Visit, alike, diagnose, lost_nano
from gateway.doctor.prints import Print, printed
from gateway.habits import Habits, kept_s
from gateway.metrics import Metrics
from gateway.sql.cache_breaks import Break, add
from gateway.sql.database import Database, DatabaseUnavailable
from gateway.types import CACHE_READ, WRITE_BUCKETS, Deployment, NanoUSD, Request, Route, Usage

LOOK_S = 0.5
"""Between two looks, of 2 ms at most."""
WAITING_MAX = 64
WAITING_OF_A_SOURCE_MAX = 8
WAITING_BYTES_MAX = 8 << 20
KINDS_MAX = 128  # (tenant, route)
SPECIMENS_MAX = 6  # prompts of each
FLUSH_S = 60.0
FOUND_MAX = 5000  # sums that wait for the database

Kind = tuple[str, str]
Source = tuple[str, str, str]
"""Tenant, route, deployment."""
Where = tuple[int, str, str, str, str, str, int]
"""Hour, tenant, route, deployment, cause, role, block."""


@dataclass(slots=True)
class Specimen:
    """The newest prompt of its kind, and until when each deployment keeps it."""

    print: Print
    held: dict[str, float]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answer to look at; `weight`: for how many it stands."""

    request: Request
    source: Source
    visit: Visit
    kept_s: float
    weight: int


@dataclass(slots=True)
class Sums:
    """Of one cause at one place."""

    token: int
    requests: int = 0
    tokens: int = 0
    cost: NanoUSD = 0

    def add(self, other: Sums) -> None:
        """Both together."""
        self.token = min(self.token, other.token)
        self.requests += other.requests
        self.tokens += other.tokens
        self.cost += other.cost


@dataclass(slots=True)
class Doctor:
    """One per process.  All methods belong to one event loop."""

    metrics: Metrics
    _waiting: deque[Waiting] = field(default_factory=deque)
    _waiting_of: dict[Source, int] = field(default_factory=dict)
    _bytes: int = 0
    _skipped: dict[Source, int] = field(default_factory=dict)
    _kinds: OrderedDict[Kind, list[Specimen]] = field(default_factory=OrderedDict)
    _found: dict[Where, Sums] = field(default_factory=dict)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, request: Request, route: Route | None, deployment: Deployment, usage: Usage, habits: Habits) -> None:
        """A complete answer with the provider's own usage, before `habits` learns of it."""
        asked, read = usage.input_tokens, usage.cached_tokens
        if CACHE_READ not in deployment.price.rates or read >= asked * FULL_SHARE:
            return
        source = (request.key.tenant, route.id if route else "", deployment.id)
        if not self._room(source, len(request.raw)):
            if source in self._skipped or len(self._skipped) < FOUND_MAX:
                self._skipped[source] = self._skipped.get(source, 0) + 1
            return
        written = not WRITE_BUCKETS.isdisjoint(usage.tokens)
        visit = Visit(deployment, request.received, asked, read, written, habits.held(request.body))
        self._waiting.append(Waiting(request, source, visit, kept_s(usage), 1 + self._skipped.pop(source, 0)))
        self._waiting_of[source] = self._waiting_of.get(source, 0) + 1
        self._bytes += len(request.raw)
        self._came.set()

    def _room(self, source: Source, size: int) -> bool:
        if len(self._waiting) >= WAITING_MAX or self._bytes + size > WAITING_BYTES_MAX:
            return False
        return self._waiting_of.get(source, 0) < WAITING_OF_A_SOURCE_MAX

    def look(self) -> None:
        """At the one that has waited longest."""
        each = self._waiting.popleft()
        self._bytes -= len(each.request.raw)
        self._waiting_of[each.source] -= 1
        if not self._waiting_of[each.source]:
            del self._waiting_of[each.source]
        if finding := self._compared(each):
            self._note(each, finding)

    def _compared(self, each: Waiting) -> Finding | None:
        """What is wrong by the prompt of its kind that it is most like, whose place it takes."""
        now, visit = printed(each.request.body), each.visit
        specimens = self._kinds.setdefault(each.source[:2], [])
        self._kinds.move_to_end(each.source[:2])
        if len(self._kinds) > KINDS_MAX:
            self._kinds.popitem(last=False)
        own = {visit.deployment.id: visit.at + each.kept_s}
        likeness, known = max(
            ((alike(specimen.print, now), specimen) for specimen in specimens),
            key=lambda pair: pair[0],
            default=(0.0, None),
        )
        if known is None or likeness < ALIKE_SHARE:
            specimens.append(Specimen(now, own))
            del specimens[:-SPECIMENS_MAX]
            return None
        held = {**known.held, **visit.held}
        finding = diagnose(known.print, now, replace(visit, held=held))
        known.print, known.held = now, {**held, **own}
        return finding

    def _note(self, each: Waiting, finding: Finding) -> None:
        tenant, route, deployment = each.source
        cost = lost_nano(finding, each.visit.deployment) * each.weight
        self.metrics.cache_broken(tenant, route, finding.cause, each.weight, cost)
        hour = int(each.visit.at // 3600)
        where = (hour, tenant, route, deployment, str(finding.cause), finding.role, finding.block)
        self._add(where, Sums(finding.token, each.weight, finding.lost_tokens * each.weight, cost))

    def _add(self, where: Where, more: Sums) -> None:
        if where in self._found:
            self._found[where].add(more)
        elif len(self._found) < FOUND_MAX:
            self._found[where] = more

    async def watch(self) -> None:
        """Until cancelled: one look at a time."""
        while True:
            await self._came.wait()
            if self._waiting:
                self.look()
            else:
                self._came.clear()
            await asyncio.sleep(LOOK_S)

    async def keep(self, database: Database) -> None:
        """Until cancelled: writes down what was found.  A database that is away waits."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush(database)

    async def flush(self, database: Database) -> None:
        """Looks at what waits and writes down what was found."""
        while self._waiting:
            self.look()
            await asyncio.sleep(0)
        found, self._found = self._found, {}
        if not found:
            return
        try:
            await database.run(partial(add, found=list(_breaks(found))), write=True)
        except DatabaseUnavailable:
            for where, sums in found.items():
                self._add(where, sums)


def _breaks(found: dict[Where, Sums]) -> Iterator[Break]:
    for (hour, tenant, route, deployment, cause, role, block), sums in found.items():
        known = (sums.token, sums.requests, sums.tokens, sums.cost)
        yield Break(tenant, route, deployment, cause, role, block, *known, hour)

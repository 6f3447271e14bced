"""How many calls a deployment is given at once, and who waits for a place in which order.

The number adapts: it shrinks when the provider says that it is overloaded or falls silent, and grows while all places
are taken and answers come.  Latency is no sign of overload here: an answer takes as long as it is long.

Who finds no place waits in a queue that is bounded, fair and aware of deadlines.  Places go to tenants in turn, however
many requests each has waiting; where the queue is full, the tenant who has most in it loses its newest.  Nobody waits
who would wait in vain.  A request of a higher class goes first, but every `LOWEST_TURN`th place is for the lowest.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from gateway.errors import Overloaded

PLACES_MIN = 1.0
SHRINK = 0.7
SHRINK_EVERY_S = 1.0
"""Failures of the same moment are one sign."""
RESERVED = 0.2
"""Of the places: where several tenants come, who holds more than an equal part leaves these to the others."""
HERE_S = 10.0
"""How long a tenant that has come is counted among them."""
QUEUE_MIN = 16
QUEUE_TIMES = 2.0
"""How many may wait, in places."""
LOWEST_TURN = 10
PACE_WEIGHT = 0.1
RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S = 1.0, 30.0


IDLE = "idle"
"""The priority of what nobody waits for: it takes a place that is to spare, or none."""


class Priority(IntEnum):
    """Who goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(slots=True)
class Waiter:
    """A request in the queue.  `place` is done when it has a place, or none any more."""

    tenant: str
    place: asyncio.Future[bool]


Line = OrderedDict[str, deque[Waiter]]
"""Of one class: tenants in the order of their turns, each with its requests, oldest first."""


@dataclass(slots=True)
class Gate:
    """The places of one deployment, for one event loop."""

    most: float  # places at best
    clock: Callable[[], float]
    places: float = 0.0  # places now; 0 becomes `most`
    taken: int = 0
    waiting: int = 0
    lines: tuple[Line, ...] = field(default_factory=lambda: tuple(OrderedDict() for _ in Priority))
    by_tenant: dict[str, int] = field(default_factory=dict)  # how many wait
    holding: dict[str, int] = field(default_factory=dict)  # how many have a place
    came: OrderedDict[str, float] = field(default_factory=OrderedDict)  # when each was last here, oldest first
    pace_s: float | None = None  # between two places that become free
    _left_at: float = 0.0
    _shrunk_at: float = float("-inf")
    _turn: int = 0

    def __post_init__(self) -> None:
        self.places = self.places or self.most

    def free(self, tenant: str, share: float = 1.0) -> bool:
        """Whether a request would get a place now; `share`: of the places that may be used.

        Those who wait have none: there is no place, or none that their tenants may take.
        """
        return self._may(tenant, share) and not self.by_tenant.get(tenant)

    def take(self, tenant: str) -> None:
        """Takes a place that is free."""
        self.taken += 1
        self.holding[tenant] = self.holding.get(tenant, 0) + 1
        self._here(tenant)

    def take_spare(self, tenant: str, share: float) -> None:
        """Takes a place that nobody would miss; who takes it does not count among the tenants that are here.

        Raises Overloaded where more than this share of the places are taken, or somebody waits for one.
        """
        if self.waiting or self.taken >= self.places * share:
            raise self.overloaded(tenant)
        self.taken += 1
        self.holding[tenant] = self.holding.get(tenant, 0) + 1

    async def enter(
        self, tenant: str, wait_max_s: float, priority: Priority = Priority.NORMAL, share: float = 1.0
    ) -> None:
        """Takes a place; `leave` gives it back.  Raises Overloaded, at once where waiting would be in vain."""
        if self.free(tenant, share):
            return self.take(tenant)
        if self.hopeless(tenant, wait_max_s):
            raise self.overloaded(tenant)
        self._make_room()
        waiter = Waiter(tenant, asyncio.get_running_loop().create_future())
        self._join(waiter, priority)
        try:
            async with asyncio.timeout(wait_max_s):
                has_place = await waiter.place
        except BaseException as error:
            self._gone(waiter, priority)
            if isinstance(error, TimeoutError):
                raise self.overloaded(tenant) from None
            raise
        if not has_place:
            raise self.overloaded(tenant)
        return None

    def hopeless(self, tenant: str, wait_max_s: float) -> bool:
        """Whether one more of the tenant's would find no place in time, or none in the queue."""
        if not wait_max_s > 0 or self.expected_s(tenant) > wait_max_s:
            return True
        return self._full() and max(self.by_tenant.values()) <= self.by_tenant.get(tenant, 0) + 1

    def leave(self, tenant: str, share: float = 1.0) -> None:
        """Gives a place back."""
        now = self.clock()
        if self._left_at:
            gap = now - self._left_at
            self.pace_s = gap if self.pace_s is None else self.pace_s + PACE_WEIGHT * (gap - self.pace_s)
        self._left_at = now
        self.taken -= 1
        self.holding[tenant] -= 1
        if not self.holding[tenant]:
            del self.holding[tenant]
        while self.waiting and self._next(share):
            pass

    def answered(self) -> None:
        """A complete answer: one more place for each round of them, if all are in use."""
        if self.places < self.most and self.taken >= self.places - 1:
            self.places = min(self.most, self.places + 1 / self.places)

    def strained(self) -> None:
        """The provider says that it is overloaded, or says nothing any more."""
        now = self.clock()
        if now - self._shrunk_at >= SHRINK_EVERY_S:
            self._shrunk_at = now
            self.places = max(PLACES_MIN, min(self.places, float(self.taken)) * SHRINK)

    def expected_s(self, tenant: str) -> float:
        """How long a new request of the tenant would wait; 0 while nobody knows."""
        if self.pace_s is None:
            return 0.0
        own = self.by_tenant.get(tenant, 0)
        ahead = min(self.waiting, own * max(1, len(self.by_tenant)) + len(self.by_tenant))
        return (ahead + 1) * self.pace_s

    def overloaded(self, tenant: str) -> Overloaded:
        """The error of a request that gets no place."""
        wait_s = min(RETRY_AFTER_MAX_S, max(RETRY_AFTER_MIN_S, self.expected_s(tenant)))
        return Overloaded("Too many requests are waiting for this model; try again later.", retry_after_s=wait_s)

    def _full(self) -> bool:
        return self.waiting >= max(QUEUE_MIN, QUEUE_TIMES * self.places)

    def _make_room(self) -> None:
        """In a full queue, who has most in it loses its newest to who has less."""
        if not self._full():
            return
        greediest = max(self.by_tenant, key=self.by_tenant.__getitem__)
        for line in reversed(self.lines):
            if line.get(greediest):
                waiter = line[greediest].pop()
                self._removed(line, waiter)
                if not waiter.place.done():
                    waiter.place.set_result(False)
                return

    def _join(self, waiter: Waiter, priority: Priority) -> None:
        self.lines[priority].setdefault(waiter.tenant, deque()).append(waiter)
        self.by_tenant[waiter.tenant] = self.by_tenant.get(waiter.tenant, 0) + 1
        self.waiting += 1
        self._here(waiter.tenant)

    def _may(self, tenant: str, share: float) -> bool:
        """Whether the tenant may take one more place.  The last ones are for who has less than an equal part."""
        places = self.places * share
        if places < PLACES_MIN:
            places = PLACES_MIN
        if self.taken >= places:
            return False
        if self.taken < places * (1 - RESERVED):
            return True
        others = self._others(tenant)
        return not others or self.holding.get(tenant, 0) < places / (others + 1)

    def _others(self, tenant: str) -> int:
        """How many other tenants have been here of late."""
        old = self.clock() - HERE_S
        while self.came and self.came[first := next(iter(self.came))] < old:
            del self.came[first]
        return len(self.came) - (tenant in self.came)

    def _here(self, tenant: str) -> None:
        self.came[tenant] = self.clock()
        self.came.move_to_end(tenant)

    def _gone(self, waiter: Waiter, priority: Priority) -> None:
        """A waiter has had enough."""
        if waiter.place.done() and not waiter.place.cancelled():
            if waiter.place.result():
                self.leave(waiter.tenant)  # the place it was given in the same moment
            return
        line = self.lines[priority]
        if waiter in line.get(waiter.tenant, ()):
            line[waiter.tenant].remove(waiter)
            self._removed(line, waiter)

    def _removed(self, line: Line, waiter: Waiter) -> None:
        self.waiting -= 1
        self.by_tenant[waiter.tenant] -= 1
        if not self.by_tenant[waiter.tenant]:
            del self.by_tenant[waiter.tenant]
        if not line[waiter.tenant]:
            del line[waiter.tenant]

    def _next(self, share: float) -> bool:
        """A place goes to the tenant whose turn it is.  False: there is none that somebody may take."""
        turn = self._turn + 1
        lines = [line for line in self.lines if line]
        for line in reversed(lines) if turn % LOWEST_TURN == 0 else lines:
            for tenant, waiters in line.items():
                if self._may(tenant, share):
                    waiter = waiters.popleft()
                    line.move_to_end(tenant)
                    self._removed(line, waiter)
                    if not waiter.place.done():
                        self._turn = turn
                        self.take(tenant)
                        waiter.place.set_result(True)
                    return True
        return False


class Gates:
    """The gate of every deployment, made on first sight."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._gates: dict[str, Gate] = {}

    def of(self, deployment: str, most: int) -> Gate:
        """The gate of one deployment, which has at best `most` places."""
        gate = self._gates.get(deployment)
        if gate is None:
            gate = self._gates[deployment] = Gate(float(most), self._clock)
        elif gate.most != most:
            gate.most, gate.places = float(most), min(gate.places, float(most)) if gate.places < gate.most else most
        return gate

"""Any order of verbs, clocks and crashes, on every keeper, against a model that only adds up its history."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledgers import KEY, PROVIDER, WEDNESDAY, Clock, Keeper, hold, line, record

from gateway.errors import LimitReached
from gateway.ledger.base import Ledger, Line, Reservation, Settlement, Spent
from gateway.ledger.memory import MemoryLedger
from gateway.ledger.open import open_redis
from gateway.ledger.sqlite import SqliteLedger
from gateway.types import Account, Action, Every, Unit, Window

T = TypeVar("T")

SETTINGS = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)

MINUTE, DAY_W, TOTAL, ROLLING = Window(Every.MINUTE), Window(Every.DAY), Window(Every.TOTAL), Window(rolling_s=600)
LINES = (
    line(0, 1000, window=DAY_W),
    line(0, 700, window=ROLLING, account=KEY),
    line(0, 4, window=MINUTE, unit=Unit.REQUESTS),
    line(0, 3, unit=Unit.CONCURRENT),
    line(0, 150, window=TOTAL, unit=Unit.TOKENS, action=Action.ALERT),
    line(0, 3000, window=TOTAL, account=PROVIDER),
    line(0, 200, window=ROLLING, unit=Unit.OUTPUT_TOKENS),
)
LASTS_S = 80_000
"""Less than the day for which a settled id is remembered."""


@dataclass
class Request:
    """One request as the model remembers it."""

    reservation: Reservation
    at: float
    deadline: float
    state: str = "open"  # open, presumed, settled, released
    spent: Spent | None = None
    unheld: bool = False  # settled after it had been released

    def counted(self, unit: Unit, amount: int, account: Account) -> tuple[int, int]:
        """(spent, reserved) of a line of this request."""
        if self.state == "open":
            return 0, amount
        if self.state == "presumed":
            return (0 if unit is Unit.CONCURRENT else amount), 0
        if self.state == "released" or self.spent is None:
            return 0, 0
        if account.kind == "provider" and self.spent.shares is not None:
            own = self.spent.shares.get(f"provider {account.id}")
            return (0 if own is None else own.of(unit)), 0
        return self.spent.of(unit), 0


def counts(each: Line, at: float, now: float) -> bool:
    """Whether an amount of the moment `at` counts on the line now; written without the ledger's windows."""
    window = each.limit.window
    if each.limit.unit is Unit.CONCURRENT or window is TOTAL:
        return True
    if window is ROLLING:
        return at // 10 >= (now - 600) // 10
    length = 60 if window is MINUTE else 86_400
    return at // length == now // length


class Interleavings(RuleBasedStateMachine):
    """One ledger, two gateways on it, and the model."""

    make: ClassVar[Callable[[Clock], Keeper]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock(WEDNESDAY)
        self.keeper = self.make(self.clock)
        self.gateways: list[Ledger] = []
        self.requests: dict[str, Request] = {}
        self.unreserved = 0
        self.written: dict[str, int] = {}

    @initialize()
    def start(self) -> None:
        self.gateways = [self.keeper.open(), self.keeper.open()]

    def teardown(self) -> None:
        self.run(self.keeper.close())
        self.loop.close()

    def run(self, verb: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(verb)

    # The model

    def balance(self, each: Line) -> tuple[int, int]:
        spent = reserved = 0
        for request in self.requests.values():
            for own in request.reservation.lines:
                if own.limit is each.limit and counts(own, request.at, self.clock.now):
                    s, r = request.counted(own.limit.unit, own.amount, own.account)
                    spent, reserved = spent + s, reserved + r
        return spent, reserved

    def refused_by(self, reservation: Reservation) -> str | None:
        for each in reservation.lines:
            room = each.limit.amount - sum(self.balance(each))
            if each.limit.action is Action.DENY and each.amount > 0 and each.amount > room:
                return str(each.account)
        return None

    def reservation(self, chosen: set[int], cost: int, tokens: int, ttl_s: float) -> Reservation:
        amounts = {
            Unit.COST: cost,
            Unit.REQUESTS: 1,
            Unit.CONCURRENT: 1,
            Unit.TOKENS: tokens,
            Unit.OUTPUT_TOKENS: tokens // 2,
        }
        lines = [Line(each.account, each.limit, amounts[each.limit.unit]) for each in LINES]
        some = [lines[number] for number in sorted(chosen)]
        return hold(f"r{len(self.requests) + self.unreserved}", *some, at=self.clock.now, ttl_s=ttl_s)

    async def at_once(self, verbs: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        return await asyncio.gather(*verbs, return_exceptions=True)

    def settled(self, gateway: Ledger, request: Request, spent: Spent) -> Coroutine[Any, Any, Settlement]:
        return gateway.settle(request.reservation, spent, record(request.reservation, spent.cost))

    def check_settled(self, request: Request, spent: Spent, found: list[Settlement]) -> None:
        first = {
            "open": Settlement.SETTLED,
            "presumed": Settlement.LATE,
            "settled": Settlement.AGAIN,
            "released": Settlement.UNKNOWN,
        }[request.state]
        assert sorted(found) == sorted([first] + [Settlement.AGAIN] * (len(found) - 1))
        if request.state != "settled":
            request.unheld = request.state == "released"
            request.state, request.spent = "settled", spent
            self.written[request.reservation.id] = spent.cost

    # The rules

    @rule(
        gateway=st.integers(0, 1),
        chosen=st.sets(st.integers(0, len(LINES) - 1)),
        cost=st.integers(0, 400),
        tokens=st.integers(0, 90),
        ttl_s=st.sampled_from([1.0, 60.0, 7200.0]),
    )
    def reserve(self, gateway: int, chosen: set[int], cost: int, tokens: int, ttl_s: float) -> None:
        reservation = self.reservation(chosen, cost, tokens, ttl_s)
        expected = self.refused_by(reservation)
        (answer,) = self.run(self.at_once([self.gateways[gateway].reserve(reservation)]))
        if expected is None:
            assert isinstance(answer, list), answer
            self.requests[reservation.id] = Request(reservation, self.clock.now, self.clock.now + ttl_s)
        else:
            assert isinstance(answer, LimitReached), answer
            assert answer.account == expected
            self.unreserved += 1

    @rule(count=st.integers(2, 12), cost=st.integers(1, 400))
    def reserve_many_at_once(self, count: int, cost: int) -> None:
        holds = []
        for _ in range(count):
            holds.append(self.reservation({0, 1, 5}, cost, 0, 60.0))
            self.unreserved += 1
        fit = min((each.limit.amount - sum(self.balance(each))) // cost for each in holds[0].lines)
        answers = self.run(self.at_once([self.gateways[n % 2].reserve(each) for n, each in enumerate(holds)]))
        taken = [each for each, answer in zip(holds, answers, strict=True) if isinstance(answer, list)]
        assert len(taken) == max(0, min(fit, count))
        for each in taken:
            self.requests[each.id] = Request(each, self.clock.now, self.clock.now + 60.0)

    @precondition(lambda self: self.requests)
    @rule(
        gateway=st.integers(0, 1),
        data=st.data(),
        cost=st.integers(0, 450),
        tokens=st.integers(0, 120),
        shared=st.sampled_from(["all", "part", "none"]),
    )
    def settle(self, gateway: int, data: st.DataObject, cost: int, tokens: int, shared: str) -> None:
        request = data.draw(st.sampled_from(list(self.requests.values())))
        part = {f"provider {PROVIDER.id}": Spent(cost // 3, 1, tokens // 2, tokens // 5)} if shared == "part" else {}
        spent = Spent(cost, 1, tokens, tokens // 3, None if shared == "all" else part)
        found = self.run(self.settled(self.gateways[gateway], request, spent))
        self.check_settled(request, spent, [found])

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), cost=st.integers(0, 450))
    def settle_twice_at_once(self, data: st.DataObject, cost: int) -> None:
        request = data.draw(st.sampled_from(list(self.requests.values())))
        spent = Spent(cost)
        found = self.run(self.at_once([self.settled(gateway, request, spent) for gateway in self.gateways]))
        self.check_settled(request, spent, found)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), ttl_s=st.sampled_from([1.0, 600.0]))
    def extend(self, data: st.DataObject, ttl_s: float) -> None:
        request = data.draw(st.sampled_from(list(self.requests.values())))
        assert self.run(self.gateways[0].extend(request.reservation, ttl_s)) == (request.state == "open")
        request.deadline = max(request.deadline, self.clock.now + ttl_s)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(list(self.requests.values())))
        self.run(self.gateways[1].release(request.reservation))
        if request.state == "open":
            request.state = "released"

    @rule(gateway=st.integers(0, 1))
    def expire(self, gateway: int) -> None:
        self.run(self.gateways[gateway].expire())
        for request in self.requests.values():
            if request.state == "open" and request.deadline <= self.clock.now:
                request.state = "presumed"
                self.written[request.reservation.id] = request.reservation.draft.cost or 0

    @rule(seconds=st.sampled_from([0.25, 1, 30, 61, 300, 601, 3600, 43_200]))
    def wait(self, seconds: float) -> None:
        self.clock.now = min(self.clock.now + seconds, WEDNESDAY + LASTS_S)

    @rule(gateway=st.integers(0, 1))
    def crash(self, gateway: int) -> None:
        self.gateways[gateway] = self.keeper.open()

    @invariant()
    def balances_are_the_models(self) -> None:
        for gateway in self.gateways:
            seen = self.run(gateway.balances(LINES))
            assert [(b.spent, b.reserved) for b in seen] == [self.balance(each) for each in LINES]

    @invariant()
    def no_limit_is_passed_but_by_bills_above_their_hold(self) -> None:
        for each in LINES:
            excess = sum(
                max(
                    0,
                    request.counted(own.limit.unit, own.amount, own.account)[0] - (0 if request.unheld else own.amount),
                )
                for request in self.requests.values()
                for own in request.reservation.lines
                if own.limit is each.limit
            )
            if each.limit.action is Action.DENY:
                assert sum(self.balance(each)) <= each.limit.amount + excess

    @invariant()
    def every_nano_dollar_is_in_exactly_one_record(self) -> None:
        if not self.gateways:
            return
        newest: dict[str, tuple[int, int]] = {}
        entries = self.run(self.gateways[0].outbox(10_000))
        for _, each in entries:
            newest[each.id] = max(newest.get(each.id, (-1, 0)), (each.version, each.cost or 0))
        assert len({(each.id, each.version) for _, each in entries}) == len(entries)
        assert {id_: cost for id_, (_, cost) in newest.items()} == self.written


def in_memory(clock: Clock) -> Keeper:
    only = MemoryLedger(clock=clock)
    return Keeper("memory", lambda: only, clock)


def in_sqlite(clock: Clock) -> Keeper:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "l.db"
    return Keeper("sqlite", lambda: SqliteLedger(path, clock=clock, sync=False), clock, after=folder.cleanup)


def in_redis(url: str, clock: Clock, *, split: bool) -> Keeper:
    prefix = f"tollgate-test-{secrets.token_hex(6)}:"

    def forget() -> None:
        with redis.Redis.from_url(url) as client:
            if keys := list(client.scan_iter(f"{prefix}*", count=1000)):
                client.delete(*keys)

    options = {"prefix": prefix, "clock": clock, "split": split, "timeout_s": 5.0}
    return Keeper("redis", lambda: open_redis(url, **options), clock, after=forget)


@pytest.mark.parametrize("name", ["memory", "sqlite", "redis", "redis-split"])
def test_any_interleaving_keeps_the_promise(name: str, request: pytest.FixtureRequest) -> None:
    makers: dict[str, Callable[[Clock], Keeper]] = {"memory": in_memory, "sqlite": in_sqlite}
    if name.startswith("redis"):
        url = request.getfixturevalue("redis_url")
        makers[name] = lambda clock: in_redis(url, clock, split=name == "redis-split")
    machine = type(f"On_{name}", (Interleavings,), {"make": staticmethod(makers[name])})
    run_state_machine_as_test(machine, settings=SETTINGS)

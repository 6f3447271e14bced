"""Places of a deployment: how many there are, and who gets the next one."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from random import Random

import pytest

from gateway.admission import LOWEST_TURN, QUEUE_MIN, Gate, Gates, Priority
from gateway.errors import Overloaded


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    """A gate, and the order in which those who wait get a place."""

    gate: Gate
    clock: Clock
    served: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def come(self, tenant: str, priority: Priority = Priority.NORMAL, wait_max_s: float = 60.0) -> None:
        async def one() -> None:
            try:
                await self.gate.enter(tenant, wait_max_s, priority)
            except Overloaded:
                self.refused.append(tenant)
            else:
                self.served.append(tenant)

        self.tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0)

    async def leave(self, after_s: float = 0.1) -> None:
        self.clock.now += after_s
        self.gate.leave(next(iter(self.gate.holding)))
        for _ in range(3):
            await asyncio.sleep(0)

    def gone(self) -> None:
        for task in self.tasks:
            task.cancel()


@pytest.fixture
async def one_place() -> Scene:
    clock = Clock()
    return Scene(Gate(1.0, clock), clock)


async def test_a_place_that_is_free_costs_no_wait(one_place: Scene) -> None:
    await one_place.gate.enter("a", 0.0)
    assert one_place.gate.taken == 1
    assert not one_place.gate.free("a")


async def test_tenants_take_turns_however_many_requests_each_has(one_place: Scene) -> None:
    for tenant in ("storm",) * 8 + ("quiet", "calm"):
        await one_place.come(tenant)
    for _ in range(4):
        await one_place.leave()
    assert one_place.served == ["storm", "storm", "quiet", "calm", "storm"]
    one_place.gone()


async def test_a_full_queue_takes_from_who_has_most_in_it(one_place: Scene) -> None:
    for _ in range(1 + QUEUE_MIN):
        await one_place.come("storm")
    await one_place.come("storm")
    assert one_place.refused == ["storm"]
    await one_place.come("quiet")
    await asyncio.sleep(0)
    assert one_place.refused == ["storm", "storm"]
    await one_place.leave()
    await one_place.leave()
    assert "quiet" in one_place.served
    assert one_place.gate.waiting < QUEUE_MIN
    one_place.gone()


async def test_a_refusal_is_immediate_and_says_when_to_come_back(one_place: Scene) -> None:
    for _ in range(1 + QUEUE_MIN):
        await one_place.come("a")
    with pytest.raises(Overloaded) as refused:
        await one_place.gate.enter("a", 60.0)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    one_place.gone()


async def test_nobody_waits_who_would_wait_in_vain(one_place: Scene) -> None:
    for _ in range(3):
        await one_place.come("a")
    await one_place.leave(10.0)
    await one_place.leave(10.0)  # one place every ten seconds
    await one_place.come("b", wait_max_s=5.0)
    await asyncio.sleep(0)
    assert one_place.refused == ["b"]
    await one_place.come("b", wait_max_s=60.0)
    assert one_place.gate.waiting == 1
    one_place.gone()


async def test_whoever_leaves_the_queue_takes_no_place(one_place: Scene) -> None:
    for tenant in ("a", "b", "c"):
        await one_place.come(tenant)
    one_place.tasks[1].cancel()
    await asyncio.sleep(0)
    await one_place.leave()
    assert one_place.served == ["a", "c"]
    assert (one_place.gate.taken, one_place.gate.waiting, one_place.gate.by_tenant) == (1, 0, {})


async def test_a_place_given_to_one_who_is_leaving_goes_to_the_next(one_place: Scene) -> None:
    for tenant in ("a", "b", "c"):
        await one_place.come(tenant)
    one_place.gate.leave("a")  # the place is b's ...
    one_place.tasks[1].cancel()  # ... who is gone before it knows
    for _ in range(4):
        await asyncio.sleep(0)
    assert one_place.served == ["a", "c"]
    assert one_place.gate.taken == 1


async def test_a_higher_class_goes_first_and_the_lowest_is_not_forgotten(one_place: Scene) -> None:
    await one_place.come("first")
    for _ in range(3):
        await one_place.come("low", Priority.LOW)
    for _ in range(LOWEST_TURN + 1):
        await one_place.come("high", Priority.HIGH)
    for _ in range(LOWEST_TURN):
        await one_place.leave(0.0)
    assert one_place.served.count("low") == 1
    one_place.gone()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only while everyone waits, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def p99_of_calm(*, storm: bool) -> float:
    """Seconds for a request of a tenant that sends 8 a second, on 20 places for answers of about 100 ms."""
    took: list[float] = []

    async def one(gate: Gate, tenant: str, answer_s: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await gate.enter(tenant, 30.0)
        except Overloaded:
            return
        await asyncio.sleep(answer_s)
        gate.leave(tenant)
        if tenant == "calm":
            took.append(loop.time() - began)

    async def send(gate: Gate, tenant: str, per_s: float, random: Random) -> None:
        tasks = []
        for _ in range(int(per_s * 60)):
            await asyncio.sleep(random.expovariate(per_s))
            tasks.append(asyncio.create_task(one(gate, tenant, random.uniform(0.08, 0.12))))
        await asyncio.gather(*tasks)

    async def play() -> None:
        gate = Gate(20.0, asyncio.get_running_loop().time)
        senders = [send(gate, "calm", 8.0, Random(1))]
        if storm:
            senders.append(send(gate, "storm", 400.0, Random(2)))
        await asyncio.gather(*senders)
        assert (gate.taken, gate.waiting, gate.holding) == (0, 0, {})

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play())
    return statistics.quantiles(took, n=100)[98]


def test_a_storm_of_fifty_times_its_share_raises_anothers_p99_by_less_than_a_fifth() -> None:
    assert p99_of_calm(storm=True) < 1.2 * p99_of_calm(storm=False)


async def test_a_tenant_alone_may_take_every_place() -> None:
    gate = Gate(10.0, Clock())
    for _ in range(10):
        await gate.enter("a", 0.0)
    assert gate.taken == 10


async def test_the_last_places_are_for_who_has_few() -> None:
    gate = Gate(10.0, Clock())
    await gate.enter("b", 0.0)
    for _ in range(7):
        await gate.enter("a", 0.0)
    assert not gate.free("a")
    assert gate.free("b")


async def test_places_shrink_under_strain_and_grow_again_under_load() -> None:
    clock = Clock()
    gate = Gate(100.0, clock, taken=80)
    gate.strained()
    gate.strained()  # of the same moment
    assert gate.places == pytest.approx(56.0)
    clock.now += 2
    gate.strained()
    assert gate.places == pytest.approx(39.2)
    gate.taken = 10
    gate.answered()
    assert gate.places == pytest.approx(39.2)  # they were not all needed
    for _ in range(10_000):
        gate.taken = int(gate.places)
        gate.answered()
    assert gate.places == 100.0


async def test_a_deployment_that_recovers_has_a_share_of_its_places() -> None:
    gate = Gate(100.0, Clock(), taken=10)
    assert not gate.free("a", 0.1)
    assert gate.free("a", 0.5)


async def test_a_reload_changes_the_places() -> None:
    gates = Gates(Clock())
    assert gates.of("a", 10).places == 10
    assert gates.of("a", 20).places == 20
    assert gates.of("a", 5).places == 5

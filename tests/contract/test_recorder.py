"""Every usage record reaches SQL exactly once, whatever happens on the way: on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import a_record, count, proxied, stored

from gateway import recorder as module
from gateway.ledger.base import Reservation, Spent
from gateway.ledger.memory import MemoryLedger
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from gateway.spool import Spool
from gateway.sql.database import Database, DatabaseUnavailable, engine
from gateway.sql.migrate import upgrade
from gateway.sql.records import Filter, Row, named, page, row, write
from gateway.sql.schema import metadata
from gateway.sql.spend import spend
from gateway.types import Bucket, Outcome, Record


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.db"
    return str(request.getfixturevalue("postgres_schema_url"))


@pytest.fixture
def url(database_url: str) -> str:
    upgrade(database_url)
    return database_url


Make = Callable[..., Recorder]


@pytest.fixture
def make(url: str, tmp_path: Path) -> Make:
    def made(ledger: Any = None, **options: Any) -> Recorder:
        options.setdefault("clock", lambda: 0.0)
        metrics = options.pop("metrics", None) or Metrics()
        return Recorder(
            ledger or MemoryLedger(),
            options.pop("url", url),
            options.pop("folder", tmp_path / "spool"),
            metrics,
            **options,
        )

    return made


class Stale(MemoryLedger):
    """A ledger seen a moment too late: another worker has moved what still seems to wait."""

    def __init__(self, ledger: MemoryLedger, waiting: list[tuple[str, Record]]) -> None:
        self._real, self._waiting = ledger, waiting

    async def outbox(self, count: int) -> list[tuple[str, Record]]:
        return self._waiting[:count]

    async def ack(self, tokens: Any) -> None:
        await self._real.ack(tokens)


async def settled(ledger: MemoryLedger, *records: Record) -> None:
    for record in records:
        draft = msgspec.structs.replace(record, version=0, outcome=Outcome.PRESUMED)
        reservation = Reservation(record.id, record.tenant, (), draft)
        await ledger.reserve(reservation)
        await ledger.settle(reservation, Spent(record.cost or 0), record)


def sample(metrics: Metrics, name: str) -> float:
    lines = metrics.render().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and "_created" not in line)


async def test_a_settled_record_is_in_sql_field_by_field_and_no_longer_in_the_outbox(make: Make, url: str) -> None:
    ledger, metrics = MemoryLedger(), Metrics()
    record = a_record(
        fees={"web_search": 2}, flags=("clamped",), reported_cost=1_300, reasons="cheapest", user="ü\u2603"
    )
    await settled(ledger, record)
    recorder = make(ledger, metrics=metrics)
    assert await recorder.round() == 1
    found = stored(url)["r1"]
    for name in [each for each in Record.__struct_fields__ if each != "savings"]:  # in columns of their own
        expected = getattr(record, name)
        assert found[name] == (list(expected) if isinstance(expected, tuple) else expected), name
    assert (found["input_tokens"], found["cached_tokens"], found["output_tokens"]) == (150, 50, 20)
    assert await ledger.outbox(10) == []
    assert recorder.pending() == 0
    assert sample(metrics, "tollgate_records_written_total") == 1


async def test_requests_have_their_turn_while_a_batch_is_made_into_rows(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, made = 0, Counter[int]()

    async def requests() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def counting(record: Record) -> Row:
        made[turn] += 1
        return row(record)

    monkeypatch.setattr(module, "row", counting)
    ledger = MemoryLedger()
    await settled(ledger, *(a_record(f"r{number}") for number in range(100)))
    others = asyncio.create_task(requests())
    assert await make(ledger).round() == 100
    others.cancel()
    assert made.total() == 100
    assert max(made.values()) <= module.TURN


async def test_a_batch_whose_acknowledgement_is_lost_is_not_written_twice(make: Make, url: str) -> None:
    class Forgetful(MemoryLedger):
        async def ack(self, tokens: Any) -> None:
            raise_once = not acked
            acked.append(list(tokens))
            if raise_once:
                raise OSError("reset by peer")
            await super().ack(tokens)

    acked: list[list[str]] = []
    ledger, metrics = Forgetful(), Metrics()
    await settled(ledger, *(a_record(f"r{number}") for number in range(20)))
    recorder = make(ledger, metrics=metrics)
    with pytest.raises(OSError, match="reset"):
        await recorder.round()
    assert recorder.pending() == 20
    assert await recorder.round() == 20
    assert count(url) == 20
    assert sample(metrics, "tollgate_records_written_total") == 20


async def test_a_late_truth_replaces_a_presumption_and_never_the_reverse(make: Make, url: str) -> None:
    recorder = make()
    presumed = a_record(version=0, outcome=Outcome.PRESUMED, cost=5_000, components={})
    for first, second in ((presumed, a_record()), (a_record(), presumed)):
        recorder.spool(first)
        await recorder.round()
        recorder.spool(second)
        await recorder.round()
        assert stored(url)["r1"]["cost"] == 1_234
    recorder.spool(a_record("r2"))
    recorder.spool(msgspec.structs.replace(presumed, id="r2"))
    await recorder.round()
    assert stored(url)["r2"]["version"] == 1


async def test_presumed_spend_is_counted_in_the_metrics_once(make: Make) -> None:
    metrics = Metrics()
    recorder = make(metrics=metrics)
    for _ in range(2):
        recorder.spool(a_record(version=0, outcome=Outcome.PRESUMED, cost=5_000, components={}))
        await recorder.round()
    recorder.spool(a_record("r2"))  # observed by the pipeline that settled it
    await recorder.round()
    assert metrics.nano_usd() == {("acme", "small", "presumed"): 5_000}


async def test_two_recorders_on_one_outbox_neither_deadlock_nor_count_twice(
    make: Make, url: str, tmp_path: Path
) -> None:
    ledger, metrics = MemoryLedger(), Metrics()
    records = [a_record(f"r{number:04d}") for number in range(1_500)]
    await settled(ledger, *records)
    backwards = Backwards(ledger)
    recorders = [make(ledger, metrics=metrics), make(backwards, metrics=metrics, folder=tmp_path / "other")]
    while await ledger.outbox(1):
        await asyncio.gather(*(recorder.round() for recorder in recorders))
    assert count(url) == 1_500
    assert sample(metrics, "tollgate_records_written_total") == 1_500


async def test_batches_in_any_order_never_deadlock(postgres_schema_url: str) -> None:
    upgrade(postgres_schema_url)
    database = Database(postgres_schema_url, threads=4)
    ids = [f"r{number:04d}" for number in range(400)]
    orders = [ids, ids[::-1], ids[1::2] + ids[::2], ids[200:] + ids[:200]]
    for version in range(1, 9):
        batches = [[row(a_record(id_, version=4 * version + at)) for id_ in order] for at, order in enumerate(orders)]
        await asyncio.gather(
            *(database.run(lambda connection, rows=rows: write(connection, rows), write=True) for rows in batches)
        )
    assert {found["version"] for found in stored(postgres_schema_url).values()} == {35}
    database.close()


class Backwards:
    """The same outbox, read from its other end of each batch."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self.ack = ledger.ack

    async def outbox(self, count: int) -> list[tuple[str, Record]]:
        return list(reversed(await self._ledger.outbox(count)))


async def test_a_poisonous_record_is_quarantined_and_the_others_pass(make: Make, url: str, tmp_path: Path) -> None:
    ledger, metrics = MemoryLedger(), Metrics()
    records = [a_record(f"r{number}") for number in range(50)]
    records[17] = a_record("poison", latency_ms=2**63)
    records[31] = a_record("venom", cost=2**70)
    recorder = make(ledger, metrics=metrics)
    await settled(ledger, *(record for record in records if record.id != "venom"))
    recorder.spool(records[31])
    await recorder.round()
    assert count(url) == 48
    assert recorder.pending() == 0
    assert await ledger.outbox(1) == []
    lines = (tmp_path / "spool" / "quarantine.jsonl").read_bytes().splitlines()
    kept = [msgspec.json.decode(msgspec.json.decode(line)["content"], type=Record) for line in lines]
    assert {record.id: record for record in kept} == {"poison": records[17], "venom": records[31]}
    assert sample(metrics, 'tollgate_records_failed_total{reason="quarantined"}') == 2


async def test_what_only_the_server_can_refuse_is_found_among_the_others(
    postgres_schema_url: str, make: Make, tmp_path: Path
) -> None:
    upgrade(postgres_schema_url)
    recorder = make(url=postgres_schema_url)
    bad = {7, 8, 300, 499}
    for number in range(500):
        recorder.spool(a_record(f"r{number}", attempts=2**40 if number in bad else 1))
    await recorder.round()
    assert set(stored(postgres_schema_url)) == {f"r{number}" for number in set(range(500)) - bad}
    lines = await asyncio.to_thread((tmp_path / "spool" / "quarantine.jsonl").read_bytes)
    assert {f"r{number}" for number in bad} == {
        msgspec.json.decode(msgspec.json.decode(line)["content"], type=Record).id for line in lines.splitlines()
    }
    assert recorder.pending() == 0


async def test_without_room_for_quarantine_a_poisonous_record_waits_and_holds_nobody_up(
    make: Make, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = MemoryLedger()
    await settled(ledger, a_record("r1"), a_record("poison", latency_ms=2**63), a_record("r2"))
    recorder = make(ledger)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Spool, "quarantine", full)
    await recorder.round()
    await settled(ledger, a_record("r3"))
    await recorder.round()
    assert set(stored(url)) == {"r1", "r2", "r3"}
    assert [record.id for _, record in await ledger.outbox(10)] == ["poison"]


@pytest.mark.parametrize("text", ["nul \0 in it", "half \ud83d a pair", "x" * 100_000])
async def test_no_text_of_a_client_is_poison(make: Make, url: str, text: str) -> None:
    recorder = make()
    recorder.spool(a_record(user=text, task=text, tags={text: text}, reasons=text, error=text))
    await recorder.round()
    found = stored(url)["r1"]
    assert "\0" not in found["user"]
    assert len(found["task"]) <= 512
    assert found["cost"] == 1_234


async def test_spooled_records_outlive_the_process_that_wrote_them(make: Make, url: str) -> None:
    first = make()
    for number in range(3):
        first.spool(a_record(f"r{number}"))
    assert first.pending() == 3
    await first.drain(0)  # no time to write
    second = make()
    await second.start()
    assert second.pending() == 3
    await second.drain(30)
    assert count(url) == 3
    assert second.pending() == 0


async def test_a_last_line_cut_short_is_skipped_and_the_lines_before_it_are_not(
    make: Make, url: str, tmp_path: Path
) -> None:
    first = make()
    for number in range(3):
        first.spool(a_record(f"r{number}"))
    await first.drain(0)
    [segment] = (tmp_path / "spool").glob("spool-*.jsonl")
    whole = segment.read_bytes()
    segment.write_bytes(b"{not json\n" + whole[:-40])
    second = make()
    await second.start()
    await second.drain(30)
    assert set(stored(url)) == {"r0", "r1"}
    assert not list((tmp_path / "spool").glob("spool-*.jsonl"))
    assert b"not a record" in (tmp_path / "spool" / "quarantine.jsonl").read_bytes()


async def test_a_segment_whose_writer_lives_is_left_alone(make: Make, url: str, tmp_path: Path) -> None:
    alive, other = make(), make()
    alive.spool(a_record("mine"))
    await other.start()
    await other.drain(30)
    assert count(url) == 0
    [segment] = (tmp_path / "spool").glob("spool-*.jsonl")
    with segment.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await alive.round()
    assert count(url) == 1
    assert not segment.exists()


async def test_a_full_disk_keeps_records_in_memory_and_loses_only_what_does_not_fit(
    make: Make, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    recorder = make(metrics=metrics, memory_max=5)
    recorder.spool(a_record("before"))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        real(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for number in range(7):
        recorder.spool(a_record(f"r{number}"))
    monkeypatch.undo()
    assert recorder.pending() == 6
    recorder.spool(a_record("after"))
    await recorder.round()
    assert set(stored(url)) == {"before", "after", *(f"r{number}" for number in range(5))}
    assert sample(metrics, 'tollgate_records_failed_total{reason="unspooled"}') == 5
    assert sample(metrics, 'tollgate_records_failed_total{reason="lost"}') == 2


async def test_the_spool_has_a_bound(make: Make) -> None:
    recorder = make(spool_bytes_max=2_000, memory_max=1)
    for number in range(10):
        recorder.spool(a_record(f"r{number}"))
    on_disk = recorder.pending() - 1
    assert 1 <= on_disk < 9


async def test_what_is_only_in_memory_goes_to_disk_at_the_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = make()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    recorder.spool(a_record("r1"))
    monkeypatch.undo()
    await recorder.drain(0)
    successor = make()
    await successor.start()
    assert successor.pending() == 1
    await successor.drain(30)


async def test_failures_are_followed_by_longer_rests_with_full_jitter(make: Make) -> None:
    class Away(MemoryLedger):
        async def outbox(self, count: int) -> list[tuple[str, Record]]:
            raise OSError("away")

    chance = 1.0
    recorder = make(Away(), chance=lambda: chance)
    rests = [await recorder.step() for _ in range(12)]
    assert rests[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(rests) == module.BACKOFF_MAX_S
    chance = 0.0
    assert await recorder.step() == 0.0


async def test_a_recorder_that_others_are_faster_than_rests_longer(make: Make) -> None:
    ledger = MemoryLedger()
    await settled(ledger, a_record())
    recorder = make(ledger)
    assert await recorder.step() == module.PAUSE_S
    await settled(ledger, a_record("r2"))
    other = make(MemoryLedger())
    other.spool(a_record("r2"))
    await other.round()
    assert await recorder.step() == module.FOLLOW_S


async def test_who_follows_writes_nothing_while_another_empties_the_outbox_and_all_once_nobody_does(
    make: Make, url: str
) -> None:
    ledger = MemoryLedger()
    follower, leader = make(ledger), make(ledger)
    await settled(ledger, a_record("r1"))
    stale = await ledger.outbox(1)
    assert await leader.round() == 1
    follower._ledger = Stale(ledger, stale)
    assert await follower.step() == module.FOLLOW_S
    follower._ledger = ledger
    for number in range(2, 5):  # each time it looks something else waits, and it leaves that to the other
        await settled(ledger, a_record(f"r{number}"))
        assert await follower.step() == module.FOLLOW_S
        assert count(url) == number - 1
        assert await leader.round() == 1
    await settled(ledger, a_record("r5"), a_record("r6"))
    assert await follower.step() == module.FOLLOW_S  # the other has died
    assert await follower.step() == module.PAUSE_S
    assert (count(url), await ledger.outbox(1)) == (6, [])


async def test_who_follows_empties_the_outbox_when_it_stops(make: Make, url: str) -> None:
    ledger = MemoryLedger()
    follower = make(ledger)
    follower._following = True
    await settled(ledger, a_record("r1"), a_record("r2"))
    await follower.drain(5)
    assert (count(url), await ledger.outbox(1)) == (2, [])


async def test_a_database_that_is_stopped_delays_records_and_loses_none(
    postgres_schema_url: str, tmp_path: Path
) -> None:
    upgrade(postgres_schema_url)
    async with proxied(postgres_schema_url) as (proxy, through):
        ledger, metrics = MemoryLedger(), Metrics()
        recorder = Recorder(ledger, through, tmp_path, metrics)
        await settled(ledger, a_record("r1"))
        await recorder.round()
        await proxy.refuse()
        await settled(ledger, a_record("r2"))
        recorder.spool(a_record("r3"))
        with pytest.raises(DatabaseUnavailable):
            await recorder.round()
        assert recorder.pending() >= 1
        await proxy.open()
        await recorder.round()
        assert set(stored(postgres_schema_url)) == {"r1", "r2", "r3"}
        assert await ledger.outbox(1) == []
        await recorder.drain(5)


async def test_a_database_that_hangs_is_given_up_in_time_and_frees_its_thread(
    postgres_schema_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(postgres_schema_url)
    async with proxied(postgres_schema_url) as (proxy, through):
        ledger = MemoryLedger()
        recorder = Recorder(ledger, through, tmp_path, Metrics())
        await settled(ledger, a_record("r1"))
        await recorder.round()
        proxy.hang()
        await settled(ledger, a_record("r2"))
        monkeypatch.setattr(module, "WRITE_S", 0.2)
        with pytest.raises(DatabaseUnavailable, match=r"within 0\.2 s"):
            await recorder.round()
        monkeypatch.setattr(module, "WRITE_S", 10.0)
        await recorder.round()
        assert set(stored(postgres_schema_url)) == {"r1", "r2"}
        await recorder.drain(5)


async def test_a_connection_that_went_stale_is_replaced_unnoticed(postgres_schema_url: str) -> None:
    upgrade(postgres_schema_url)
    async with proxied(postgres_schema_url) as (proxy, through):
        database = Database(through)
        await database.run(lambda connection: page(connection, Filter(), 1))
        await proxy.refuse()
        await proxy.open()
        assert await database.run(lambda connection: page(connection, Filter(), 1)) == []
        database.close()


async def test_the_outbox_drains_beside_a_real_ledger_loop(make: Make, url: str) -> None:
    ledger = MemoryLedger()
    recorder = make(ledger, clock=asyncio.get_running_loop().time)
    await recorder.start()
    await settled(ledger, *(a_record(f"r{number}") for number in range(1_200)))
    recorder.spool(a_record("spooled"))
    await recorder.drain(30)
    assert count(url) == 1_201


def test_the_migrations_build_the_schema_and_nothing_else(url: str) -> None:
    made = engine(url, 1)
    with made.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    made.dispose()


async def test_workers_that_start_at_once_migrate_once(database_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(upgrade, database_url) for _ in range(6)))
    assert count(database_url) == 0


def test_an_unknown_kind_of_database_is_named() -> None:
    with pytest.raises(ValueError, match="mysql"):
        engine("mysql://localhost/x")


async def test_spend_is_summed_exactly_and_unknown_is_not_zero(url: str) -> None:
    database = Database(url)
    huge = 2**53 + 1
    hour = 3600 * (1_789_560_000 // 3600)
    rows = [
        a_record("a", cost=huge, user="u1", at=float(hour)),
        a_record("b", cost=2, user="u2", at=hour + 3599.9, tags={}),
        a_record("c", cost=None, baseline_cost=None, user="u1", at=hour + 3600.0),
        a_record("d", cost=7, tenant="other", at=hour + 86400.0, outcome=Outcome.PRESUMED, version=0),
    ]
    await database.run(lambda connection: write(connection, [row(record) for record in rows]), write=True)

    def sums(*by: str, **equal: str) -> dict[tuple[str | None, ...], tuple[int, int, int]]:
        with database.engine.connect() as connection:
            return {
                found.group: (found.requests, found.cost, found.unknown)
                for found in spend(connection, Filter(equal=equal), by)
            }

    assert sums() == {(): (4, huge + 9, 1)}
    assert sums("tenant") == {("acme",): (3, huge + 2, 1), ("other",): (1, 7, 0)}
    assert sums("user", tenant="acme") == {("u1",): (2, huge, 1), ("u2",): (1, 2, 0)}
    assert sums("tag:feature") == {("search",): (3, huge + 7, 1), (None,): (1, 2, 0)}
    assert sums("day") == {("2026-09-16",): (3, huge + 2, 1), ("2026-09-17",): (1, 7, 0)}
    assert sums("hour", "tenant")[("2026-09-16T12:00Z", "acme")] == (2, huge + 2, 0)
    assert all(type(value) is int for figures in sums("tenant").values() for value in figures)
    with database.engine.connect() as connection:
        [total] = spend(connection, Filter(), ())
        assert (total.presumed, total.baseline, total.compared) == (7, 30_000, huge + 9)
        with pytest.raises(ValueError, match="cannot group by 'colour'"):
            spend(connection, Filter(), ("colour",))
        assert [
            found.cost for found in spend(connection, Filter(tags={"feature": "search"}, until=hour + 1.0), ())
        ] == [huge]
    database.close()


async def test_pages_hold_every_record_once_also_of_the_same_moment(url: str) -> None:
    database = Database(url)
    rows = [row(a_record(f"r{number:03d}", at=1000.0 + number // 10)) for number in range(95)]
    await database.run(lambda connection: write(connection, rows), write=True)
    seen: list[str] = []
    with database.engine.connect() as connection:
        after = None
        while found := page(connection, Filter(), 7, after):
            seen += [each["id"] for each in found]
            after = (found[-1]["at"], found[-1]["id"])
    assert seen == sorted((named(each)["id"] for each in rows), reverse=True)
    database.close()


def test_every_bucket_is_summed_on_one_side_only() -> None:
    found = named(row(a_record(tokens=dict.fromkeys(Bucket, 1))))
    assert found["input_tokens"] + found["output_tokens"] == len(Bucket)

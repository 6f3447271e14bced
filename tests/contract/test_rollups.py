"""Hourly sums change how long a report takes and never what it says: on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from alembic import command
from databases import a_record
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec.structs import replace
from sqlalchemy import JSON, Connection, Engine, MetaData, Table, func, insert, select, text

from gateway.sql import by_day
from gateway.sql.database import engine
from gateway.sql.migrate import config, upgrade
from gateway.sql.records import Filter, named, row, write
from gateway.sql.rollup import due, renew
from gateway.sql.schema import daily, daily_kinds, hourly, records, stale_days
from gateway.sql.spend import Sum, spend
from gateway.sql.stale import outdated
from gateway.types import Outcome, Record

START = 1_789_560_000 // 86400 * 86400
GROUPINGS = (
    (),
    ("tenant",),
    ("key",),
    ("user",),
    ("model",),
    ("provider",),
    ("deployment", "outcome"),
    ("tag:feature",),
    ("tag:cost_center", "day"),
    ("tag:other",),
    ("task",),
    ("hour",),
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('rollups')}/records.db"
    else:
        url = str(request.getfixturevalue("postgres_url"))
        url = _own_schema(url)
    upgrade(url)
    found = engine(url, 4)
    yield found
    if found.dialect.name == "postgresql":
        with found.begin() as connection:
            connection.execute(text("DROP SCHEMA tollgate_test_rollups CASCADE"))
    found.dispose()


def _own_schema(url: str) -> str:
    with engine(url, 1).begin() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS tollgate_test_rollups CASCADE"))
        connection.execute(text("CREATE SCHEMA tollgate_test_rollups"))
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3Dtollgate_test_rollups"


@pytest.fixture
def connection(made: Engine) -> Iterator[Connection]:
    with made.connect().execution_options(write=True) as found:
        transaction = found.begin()
        yield found
        transaction.rollback()


def some(number: int, seed: int = 0) -> list[Record]:
    chance = random.Random(seed)
    return [
        a_record(
            f"r{index}",
            version=chance.choice([0, 1]),
            at=START + chance.uniform(0, 6 * 3600),
            tenant=chance.choice(["acme", "globex"]),
            key=chance.choice(["k_1", "k_2"]),
            user=chance.choice(["u1", "u2", ""]),
            task=chance.choice(["t1", ""]),
            model=chance.choice(["auto", "small"]),
            deployment=chance.choice(["small", "large"]),
            provider=chance.choice(["openai", "anthropic"]),
            outcome=chance.choice([Outcome.OK, Outcome.PRESUMED, Outcome.UPSTREAM_ERROR]),
            error=chance.choice(["", "upstream_error"]),
            cost=chance.choice([None, 0, chance.randrange(10**12)]),
            baseline_cost=chance.choice([None, chance.randrange(10**12)]),
            overhead_cost=chance.randrange(100),
            tags=chance.choice([{}, {"feature": "search"}, {"feature": "chat", "cost_center": "42"}, {"other": "x"}]),
            estimated=chance.choice([True, False]),
        )
        for index in range(number)
    ]


def put(connection: Connection, found: list[Record]) -> None:
    write(connection, [row(record) for record in found])


def by_record(connection: Connection, wanted: Filter, by: tuple[str, ...]) -> list[Sum]:
    """The same report with every hour stale: read record by record."""
    hidden = connection.begin_nested()
    connection.execute(
        text("INSERT INTO stale_hours (hour) SELECT DISTINCT hour FROM records WHERE true ON CONFLICT DO NOTHING")
    )
    connection.execute(hourly.delete())
    connection.execute(daily_kinds.delete())
    found = spend(connection, wanted, by, None)
    hidden.rollback()
    return found


SPANS = st.one_of(st.none(), st.floats(START - 3600, START + 7 * 3600))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 50), summed=st.sets(st.integers(0, 6)), late=st.integers(0, 20), since=SPANS, until=SPANS)
def test_a_report_says_the_same_whatever_is_summed_and_any_grouping_adds_up_to_the_nano_dollar(
    connection: Connection, seed: int, summed: set[int], late: int, since: float | None, until: float | None
) -> None:
    attempt = connection.begin_nested()
    first = some(60, seed)
    put(connection, first)
    for hour in summed:
        renew(connection, START // 3600 + hour)
    put(connection, [replace(record, version=2, cost=(record.cost or 0) + 1) for record in first[:late]])
    wanted = Filter(since=since, until=until)
    truth = [
        record
        for record in _newest(connection)
        if (since is None or record[0] >= since) and (until is None or record[0] < until)
    ]
    for by in GROUPINGS:
        groups = spend(connection, wanted, by, None)
        assert sum(group.cost for group in groups) == sum(cost or 0 for _, cost in truth)
        assert sum(group.requests for group in groups) == len(truth)
        assert sum(group.unknown for group in groups) == sum(cost is None for _, cost in truth)
        assert sorted(groups, key=repr) == sorted(by_record(connection, wanted, by), key=repr)
    attempt.rollback()


def _newest(connection: Connection) -> list[tuple[float, int | None]]:
    return [(at, cost) for at, cost in connection.execute(select(records.c.at, records.c.cost))]


def test_filters_hold_for_sums_as_for_records(connection: Connection) -> None:
    put(connection, some(200))
    for hour in (0, 1, 2):
        renew(connection, START // 3600 + hour)
    for wanted in (
        Filter(equal={"tenant": "acme"}),
        Filter(equal={"outcome": "ok", "key": "k_1"}),
        Filter(tags={"feature": "chat"}),
        Filter(tags={"other": "x"}),
        Filter(tasked=True),
        Filter(equal={"user": "u1"}, since=START + 1800.5),
    ):
        assert spend(connection, wanted, ("deployment",), None) == by_record(connection, wanted, ("deployment",))


def test_a_record_makes_its_hour_stale_and_a_renewal_makes_it_true(connection: Connection) -> None:
    put(connection, [a_record("r1", at=START + 10.0), a_record("r2", at=START + 7200.0)])
    hours = [START // 3600, START // 3600 + 2]
    assert outdated(connection) == hours
    renew(connection, hours[0])
    assert outdated(connection) == hours[1:]
    assert connection.execute(select(func.sum(hourly.c.requests))).scalar() == 1


def test_an_hour_is_due_only_when_it_is_over_for_a_while(connection: Connection) -> None:
    put(connection, [a_record("r1", at=START + 10.0)])
    assert due(connection, START + 3600 + 299, 10) == []
    assert due(connection, START + 3600 + 300, 10) == [START // 3600]


def beside_writers(made: Engine, written: Callable[[str, int], Record], renewed: Callable[[Connection], None]) -> None:
    """Renews after each of 20 records that two writers put meanwhile."""
    failures: list[BaseException] = []
    wrote = threading.Semaphore(0)  # SQLite's lock is not fair: renewing without end would starve the writers

    def writer(name: str) -> None:
        try:
            for index in range(10):
                with made.connect().execution_options(write=True) as own, own.begin():
                    put(own, [written(name, index)])
                wrote.release()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test says so
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if wrote.acquire(timeout=0.1):
            with suppress(by_day.Overtaken), made.connect().execution_options(write=True) as own, own.begin():
                renewed(own)
    assert not failures


def test_a_writer_and_a_renewal_at_the_same_time_lose_nothing(made: Engine) -> None:
    hour = START // 3600 + 100
    beside_writers(
        made,
        lambda name, index: a_record(f"{name}{index}", at=hour * 3600.0 + index, cost=1),
        lambda own: renew(own, hour),
    )
    with made.connect().execution_options(write=True) as own, own.begin():
        wanted = Filter(since=hour * 3600.0, until=(hour + 1) * 3600.0)
        assert spend(own, wanted, ("tenant",))[0].requests == 20
        own.execute(records.delete().where(records.c.hour == hour))
        renew(own, hour)


DAYS = st.one_of(st.none(), st.floats(START - 86400, START + 5 * 86400), st.sampled_from([START, START + 2 * 86400]))
BY_DAY = (
    ("user",),
    ("task",),
    ("tag:other",),
    ("tag:absent",),
    ("tenant", "user"),
    ("user", "day"),
    ("task", "tenant"),
    ("tenant", "tag:other"),
    ("user", "task"),
    ("user", "hour"),
    (),
    ("tenant", "day"),
    ("tenant", "hour"),
    ("provider", "tenant", "day"),
    ("tag:feature",),
    ("key", "deployment"),
)
NARROW = (Filter(), Filter(equal={"tenant": "acme"}), Filter(equal={"user": "u1"}), Filter(tags={"other": "x"}))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 50),
    summed=st.sets(st.integers(0, 4)),
    by_hour=st.booleans(),
    late=st.integers(0, 5),
    since=DAYS,
    until=DAYS,
    narrow=st.sampled_from([*NARROW, Filter(tasked=True)]),
)
def test_sums_by_day_say_what_records_say(
    connection: Connection,
    seed: int,
    summed: set[int],
    by_hour: bool,
    late: int,
    since: float | None,
    until: float | None,
    narrow: Filter,
) -> None:
    attempt = connection.begin_nested()
    first = [replace(record, at=START + (record.at - START) * 16) for record in some(60, seed)]  # over four days
    put(connection, first)
    for hour in outdated(connection) if by_hour else ():
        renew(connection, hour)
    for day in summed:
        if START // 86400 + day in by_day.due(connection, START + 9 * 86400.0, 99):
            by_day.renew(connection, START // 86400 + day)
    put(connection, [replace(record, version=2, cost=(record.cost or 0) + 1) for record in first[:late]])
    wanted = dataclasses.replace(narrow, since=since, until=until)
    for by in BY_DAY:
        groups = spend(connection, wanted, by, None)
        assert sorted(groups, key=repr) == sorted(by_record(connection, wanted, by), key=repr)
    attempt.rollback()


def test_the_dearest_users_come_first_whether_summed_or_not(connection: Connection) -> None:
    put(connection, [a_record(f"r{n}", at=START + n * 3600.0, user=f"u{n % 7}", cost=n * n) for n in range(60)])
    by_day.renew(connection, START // 86400)
    found = spend(connection, Filter(), ("user",), 3)
    truth = sorted(by_record(connection, Filter(), ("user",)), key=lambda each: -each.cost)
    assert found == truth[:3]


@pytest.mark.parametrize("by", [("tag:other",), ("tenant", "tag:other"), ("tag:other", "tenant")], ids=str)
def test_the_dearest_groups_are_the_same_where_some_cost_alike_and_some_have_no_name(
    connection: Connection, by: tuple[str, ...]
) -> None:
    chance = random.Random(7)
    put(
        connection,
        [
            a_record(
                f"r{n}",
                at=START + n * 3600.0,
                tenant=chance.choice(["acme", "globex"]),
                tags=chance.choice([{}, {"other": f"x{n % 9}"}]),
                cost=chance.choice([None, 5, 10]),
            )
            for n in range(60)
        ],
    )
    by_day.renew(connection, START // 86400)
    everything = spend(connection, Filter(), by, 10_000)
    assert sorted(everything, key=repr) == sorted(by_record(connection, Filter(), by), key=repr)
    for count in (1, 2, 5, 9):
        assert spend(connection, Filter(), by, count) == everything[:count]


def test_a_day_is_summed_when_it_is_over_and_again_when_a_record_comes_late(connection: Connection) -> None:
    day = START // 86400
    put(connection, [a_record("r1", at=START + 10.0, user="u1")])
    assert by_day.due(connection, START + 86400 + by_day.SETTLED_S - 1) == []
    assert by_day.due(connection, START + 86400 + by_day.SETTLED_S) == [day]
    by_day.renew(connection, day)
    assert by_day.due(connection, START + 86400 + by_day.SETTLED_S) == []
    put(connection, [a_record("r2", at=START + 20.0, user="u1")])
    assert by_day.due(connection, START + 86400 + by_day.SETTLED_S) == [day]
    assert spend(connection, Filter(), ("user",))[0].requests == 2


def test_writers_and_a_day_that_is_summed_at_the_same_time_lose_nothing(made: Engine) -> None:
    day = START // 86400 + 200
    beside_writers(
        made,
        lambda name, index: a_record(f"d{name}{index}", at=day * 86400.0 + index, cost=1, user="u1"),
        lambda own: by_day.renew(own, day),
    )
    with made.connect().execution_options(write=True) as own, own.begin():
        wanted = Filter(since=day * 86400.0, until=(day + 1) * 86400.0)
        assert spend(own, wanted, ("user",))[0].requests == 20
        own.execute(records.delete().where(records.c.hour >= day * 24))
        for table in (daily, daily_kinds, stale_days):
            own.execute(table.delete().where(table.c.day == day))
        renew(own, day * 24)


def test_records_from_before_the_sums_are_all_in_the_reports(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    made = engine(url, 1)
    with made.connect().execution_options(write=True) as own, own.begin():
        command.upgrade(config(own), "0002")
        then = Table("records", MetaData(), autoload_with=own)
        texts = [name for name, column in records.c.items() if isinstance(column.type, JSON)]
        for each in map(named, map(row, some(20))):
            known = {name: value for name, value in each.items() if name in then.c}
            own.execute(insert(then), known | dict.fromkeys(texts, "{}"))
    upgrade(url)
    with made.connect() as own:
        assert spend(own, Filter(), ())[0].requests == 20
    made.dispose()

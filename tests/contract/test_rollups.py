"""Hourly sums change how long a report takes and never what it says: on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from databases import a_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, func, select, text

from gateway.sql.database import engine
from gateway.sql.migrate import upgrade
from gateway.sql.records import Filter, row, write
from gateway.sql.rollup import due, outdated, renew
from gateway.sql.schema import hourly, records
from gateway.sql.spend import Sum, spend
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


def test_a_writer_and_a_renewal_at_the_same_time_lose_nothing(made: Engine) -> None:
    hour = START // 3600 + 100
    failures: list[BaseException] = []

    def writer(name: str) -> None:
        try:
            for index in range(25):
                with made.connect().execution_options(write=True) as own, own.begin():
                    put(own, [a_record(f"{name}{index}", at=hour * 3600.0 + index, cost=1)])
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test says so
            failures.append(error)

    threads = [threading.Thread(target=writer, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with made.connect().execution_options(write=True) as own, own.begin():
            renew(own, hour)
    for thread in threads:
        thread.join()
    assert not failures
    with made.connect().execution_options(write=True) as own, own.begin():
        wanted = Filter(since=hour * 3600.0, until=(hour + 1) * 3600.0)
        assert spend(own, wanted, ("tenant",))[0].requests == 50
        own.execute(records.delete().where(records.c.hour == hour))
        renew(own, hour)


def test_records_from_before_the_sums_are_all_in_the_reports(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    upgrade(url)
    made = engine(url, 1)
    with made.connect().execution_options(write=True) as own, own.begin():
        put(own, some(20))
        for table in ("hourly", "stale_hours", "outcomes"):
            own.execute(text(f"DROP TABLE IF EXISTS {table}"))
        for later in ("calculated_cost", "rerated_cost", "service_tier"):
            own.execute(text(f"ALTER TABLE records DROP COLUMN {later}"))
        own.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    upgrade(url)
    with made.connect() as own:
        assert spend(own, Filter(), ())[0].requests == 20
    made.dispose()

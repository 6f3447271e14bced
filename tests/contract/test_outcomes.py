"""Outcomes, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import a_record

from gateway.sql.database import Database
from gateway.sql.migrate import upgrade
from gateway.sql.outcomes import SHADOW, Agreement, Turnout, agreements, store, worth
from gateway.sql.records import Filter, row, write


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path}/records.db"
    if request.param == "postgresql":
        found = str(request.getfixturevalue("postgres_schema_url"))
    upgrade(found)
    return found


async def test_outcomes_are_stored_once_per_source_and_joined_with_records(url: str) -> None:
    database = Database(url)
    made = [row(a_record(f"r{n}", deployment="small", task="t", cost=1000)) for n in range(4)]
    await database.run(lambda connection: write(connection, made), write=True)
    said = [
        Turnout("request", "r0", "client", 1.0, success=True),
        Turnout("request", "r1", "client", 1.0, score=0.25),
        Turnout("request", "r1", "tests", 1.0, score=0.75),
        Turnout("task", "t", "client", 1.0, resolved=False),
    ]
    for _ in range(2):
        assert await database.run(lambda connection: store(connection, said), write=True) == 4
    (found,) = await database.run(lambda connection: worth(connection, Filter()))
    assert (found.route, found.deployment, found.requests, found.cost) == ("auto", "small", 4, 4000)
    assert found.mean == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert await database.run(lambda connection: worth(connection, Filter(equal={"deployment": "large"}))) == []
    database.close()


async def test_agreement_is_of_the_last_day_and_of_the_week_before_and_clients_are_believed_first(url: str) -> None:
    database, now, day = Database(url), 1_789_560_000.0, 86_400.0
    made = [row(a_record(f"r{n}", deployment="small", cost=1000)) for n in range(5)]
    await database.run(lambda connection: write(connection, made), write=True)
    said = [
        Turnout("request", "r0", SHADOW + "exact", now - 1, score=1.0),
        Turnout("request", "r1", SHADOW + "exact", now - 2, score=0.0),
        Turnout("request", "r2", SHADOW + "exact", now - 3 * day, score=1.0),
        Turnout("request", "r3", SHADOW + "exact", now - 9 * day, score=0.0),
        Turnout("request", "r4", SHADOW + "likeness", now - 1, score=0.5),
        Turnout("request", "r1", "client", now, success=True),
    ]
    await database.run(lambda connection: store(connection, said), write=True)
    found = await database.run(lambda connection: agreements(connection, now))
    assert sorted(found, key=str) == sorted(
        [
            Agreement("auto", "small", SHADOW + "exact", late=True, count=2, mean=0.5),
            Agreement("auto", "small", SHADOW + "exact", late=False, count=1, mean=1.0),
            Agreement("auto", "small", SHADOW + "likeness", late=True, count=1, mean=0.5),
        ],
        key=str,
    )
    (total,) = await database.run(lambda connection: worth(connection, Filter()))
    assert (total.requests, total.mean) == (4, pytest.approx(3 / 4)), "r1 is as its client says, r4 says nothing"
    database.close()

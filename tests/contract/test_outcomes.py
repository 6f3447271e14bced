"""Outcomes, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import a_record

from gateway.sql.database import Database
from gateway.sql.migrate import upgrade
from gateway.sql.outcomes import Turnout, store, worth
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

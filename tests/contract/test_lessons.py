"""What is kept of requests to learn from, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from databases import a_record

from gateway.sql.database import Database
from gateway.sql.lessons import Lesson, forget, habits_of, keep, keep_habits, lessons
from gateway.sql.migrate import upgrade
from gateway.sql.outcomes import SHADOW, Turnout, store
from gateway.sql.records import Filter, row, write


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/records.db"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_schema_url"))
    upgrade(url)
    found = Database(url)
    yield found
    found.close()


def lesson(id_: str, at: float = 5.0, route: str = "auto") -> Lesson:
    return Lesson(id_, at, "acme", route, (3, 17), (0.5, 1.25), 40)


async def test_a_lesson_has_what_each_deployment_was_worth_and_what_it_cost(database: Database) -> None:
    made = [
        a_record("r1", deployment="small", task="t", cost=1000, tags={"feature": "search"}),
        a_record("r1.shadow", deployment="large", cost=9000, shadow_of="r1"),
        a_record("r1.grade", deployment="grader", cost=500, shadow_of="r1"),
        a_record("r2", deployment="small", cost=None, tags={}),
        a_record("r3", deployment="small", cost=1, task="t", tags={}),
        a_record("r4", deployment="small", cost=1),
    ]
    said = [
        Turnout("request", "r1", SHADOW + "exact", 1.0, score=0.0),
        Turnout("request", "r4", "client", 1.0, success=True),
        Turnout("task", "t", "client", 1.0, success=True),
    ]
    await database.run(lambda connection: write(connection, map(row, made)), write=True)
    await database.run(lambda connection: store(connection, said), write=True)
    kept = [lesson("r1", 1.0), lesson("r2", 2.0), lesson("r3", 3.0)]
    for _ in range(2):
        await database.run(lambda connection: keep(connection, kept), write=True)
    first, second, third = await database.run(lambda connection: lessons(connection, Filter()))
    assert first.lesson == lesson("r1", 1.0)
    assert first.scores == {"small": 0.0, "large": 1.0}, "what an answer was measured by counts as right"
    assert first.costs == {"small": 0.000001, "large": 0.000009}
    assert first.feature == "search"
    assert (second.scores, second.costs) == ({"small": None}, {}), "nobody has said anything, and that is not 0"
    assert third.scores == {"small": 1.0}, "a task tells of its requests"


async def test_what_a_client_says_outweighs_a_comparison(database: Database) -> None:
    made = [a_record("r1", deployment="small"), a_record("r1.shadow", deployment="large", shadow_of="r1")]
    said = [
        Turnout("request", "r1", SHADOW + "exact", 1.0, score=0.0),
        Turnout("request", "r1", "tests", 1.0, success=True),
        Turnout("request", "r1.shadow", "tests", 1.0, success=False),
    ]
    await database.run(lambda connection: write(connection, map(row, made)), write=True)
    await database.run(lambda connection: store(connection, said), write=True)
    await database.run(lambda connection: keep(connection, [lesson("r1")]), write=True)
    (found,) = await database.run(lambda connection: lessons(connection, Filter()))
    assert found.scores == {"small": 1.0, "large": 0.0}


async def test_words_in_common_are_no_label(database: Database) -> None:
    made = [a_record("r1", deployment="small"), a_record("r1.shadow", deployment="large", shadow_of="r1")]
    said = [Turnout("request", "r1", SHADOW + "likeness", 1.0, score=0.4)]
    await database.run(lambda connection: write(connection, map(row, made)), write=True)
    await database.run(lambda connection: store(connection, said), write=True)
    await database.run(lambda connection: keep(connection, [lesson("r1")]), write=True)
    (found,) = await database.run(lambda connection: lessons(connection, Filter()))
    assert found.scores == {"small": None, "large": None}


async def test_what_is_old_is_forgotten_and_a_filter_names_times_and_routes(database: Database) -> None:
    made = [a_record(f"r{n}", deployment="small") for n in range(4)]
    await database.run(lambda connection: write(connection, map(row, made)), write=True)
    kept = [lesson(f"r{n}", float(n), "auto" if n % 2 else "other") for n in range(4)]
    await database.run(lambda connection: keep(connection, kept), write=True)
    wanted = Filter(since=1.0, equal={"route": "auto"})
    found = await database.run(lambda connection: lessons(connection, wanted))
    assert [each.lesson.id for each in found] == ["r1", "r3"]
    assert await database.run(lambda connection: forget(connection, 3.0), write=True) == 3
    assert len(await database.run(lambda connection: lessons(connection, Filter()))) == 1


async def test_habits_are_kept_by_deployment_and_the_last_word_stays(database: Database) -> None:
    first = {"small": {"talks": [["", "low", 10.0, 2.5]], "cached_share": None}}
    both = {"small": {"talks": [["", "", 12.0, 0.0]], "cached_share": 0.5}, "large": {"talks": [], "cached_share": 1.0}}
    for known in (first, both):
        await database.run(lambda connection, known=known: keep_habits(connection, known, 1.0), write=True)
    assert await database.run(habits_of) == both


async def test_what_a_judge_found_is_a_label_where_nobody_has_said_better(database: Database) -> None:
    made = [a_record("r1", deployment="strong"), a_record("r2", deployment="cheap")]
    said = [Turnout("request", "r2", "client", 1.0, success=False)]
    kept = [replace(lesson("r1", 1.0), verdicts={"cheap": 0.0}), replace(lesson("r2", 2.0), verdicts={"cheap": 1.0})]
    await database.run(lambda connection: write(connection, map(row, made)), write=True)
    await database.run(lambda connection: store(connection, said), write=True)
    await database.run(lambda connection: keep(connection, kept), write=True)
    first, second = await database.run(lambda connection: lessons(connection, Filter()))
    assert first.scores == {"strong": None, "cheap": 0.0}
    assert second.scores == {"cheap": 0.0}

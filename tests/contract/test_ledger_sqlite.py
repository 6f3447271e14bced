"""What only a file can do to a ledger: be locked, full, broken, or another process's."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from ledgers import Clock, figures, hold, line, settle

from gateway.errors import LedgerUnavailable
from gateway.ledger.base import Settlement
from gateway.ledger.sqlite import SqliteLedger
from gateway.types import Every, Window

CAP = line(10, 1000)


async def test_what_was_reserved_and_settled_is_there_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    first = SqliteLedger(tmp_path / "l.db", clock=clock)
    await first.reserve(hold("a", CAP))
    await first.reserve(hold("b", CAP))
    await settle(first, hold("a", CAP), 7)
    await first.close()
    second = SqliteLedger(tmp_path / "l.db", clock=clock)
    assert await figures(second, CAP) == (7, 10)
    assert await settle(second, hold("b", CAP), 3) is Settlement.SETTLED
    assert await settle(second, hold("a", CAP), 3) is Settlement.AGAIN
    assert [each.cost for _, each in await second.outbox(9)] == [7, 3]
    await second.close()


async def test_a_file_another_process_has_locked_is_an_error_that_says_so_and_heals(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l.db", clock=Clock(), busy_timeout_s=0.01)
    await ledger.reserve(hold("a", CAP))
    with sqlite3.connect(tmp_path / "l.db", isolation_level=None) as other:
        other.execute("begin immediate")
        with pytest.raises(LedgerUnavailable, match=r"l\.db cannot be used: database is locked"):
            await ledger.reserve(hold("b", CAP))
        other.execute("rollback")
    other.close()
    assert await figures(ledger, CAP) == (0, 10)
    await ledger.reserve(hold("b", CAP))
    await ledger.close()


async def test_a_full_disk_refuses_the_whole_transaction_and_nothing_of_it_counts(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l.db", clock=Clock())
    await ledger.reserve(hold("a", CAP))
    await ledger._run(lambda store, _: store._db.execute("pragma max_page_count = 1").fetchone())  # as many as it has
    wide = [line(10, 1000, window=Window(every)) for every in Every] * 4
    answers = await asyncio.gather(
        *(ledger.reserve(hold(f"{number}" * 500, *wide)) for number in range(100, 300)), return_exceptions=True
    )
    assert all(isinstance(answer, LedgerUnavailable) for answer in answers)
    assert "full" in str(answers[0])
    assert await figures(ledger, CAP) == (0, 10)
    await ledger.reserve(hold("b", CAP))
    await ledger.close()


async def test_a_broken_file_is_an_error_that_says_so_and_a_mended_one_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(b"this is no database " * 500)
    ledger = SqliteLedger(path, clock=Clock())
    with pytest.raises(LedgerUnavailable, match="not a database"):
        await ledger.ping()
    path.unlink()
    await ledger.ping()
    await ledger.close()


async def test_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "missing" / "l.db", clock=Clock())
    with pytest.raises(LedgerUnavailable, match="unable to open"):
        await ledger.ping()
    await ledger.close()


async def test_a_bug_in_one_call_is_told_and_does_not_end_the_ledger(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l.db", clock=Clock())
    with pytest.raises(AttributeError):
        await ledger.reserve("not a reservation")  # type: ignore[arg-type]  # which is the point
    await ledger.reserve(hold("a", CAP))
    await ledger.close()


async def test_requests_of_one_tick_share_their_statements(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    await ledger.reserve(hold("warm", CAP))
    for verb in (ledger.reserve, lambda each: settle(ledger, each, 1)):
        statements: list[str] = []
        await ledger._run(lambda store, _, seen=statements: store._db.set_trace_callback(seen.append))
        await asyncio.gather(*(verb(hold(f"r{number}", CAP)) for number in range(64)))
        assert len(statements) < 10, statements
    await ledger.close()


async def test_other_tables_of_the_file_are_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.db") as other:
        other.execute("create table records (id text)")
        other.execute("insert into records values ('r1')")
    other.close()
    ledger = SqliteLedger(tmp_path / "l.db", clock=Clock())
    await ledger.reserve(hold("a", CAP))
    await ledger.close()
    with sqlite3.connect(tmp_path / "l.db") as other:
        names = {name for (name,) in other.execute("select name from sqlite_schema where type = 'table'")}
        assert other.execute("select * from records").fetchall() == [("r1",)]
    other.close()
    assert {name for name in names if not name.startswith(("ledger_", "sqlite_"))} == {"records"}


async def test_what_nobody_asks_for_any_more_is_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    ledger = SqliteLedger(tmp_path / "l.db", clock=clock)
    windows = (Window(Every.MINUTE), Window(Every.DAY), Window(rolling_s=60), Window(Every.TOTAL))
    for number in range(50):
        each = hold(f"r{number}", *(line(1, 10**6, window=window) for window in windows))
        await ledger.reserve(each)
        if number % 2:
            await settle(ledger, each, 1)
        clock.advance(61)
    clock.advance(200)
    await ledger.expire()
    await ledger.ack([token for token, _ in await ledger.outbox(100)])
    clock.advance(40 * 86_400)
    await ledger.expire()
    assert await figures(ledger, line(0, 10**6, window=Window(Every.TOTAL))) == (50, 0)
    await ledger.close()
    with sqlite3.connect(tmp_path / "l.db") as file:
        counts = [file.execute(f"select count(*) from ledger_{name}").fetchone()[0] for name in TABLES]
    file.close()
    assert counts == [1, 0, 0]


TABLES = ("counters", "holds", "outbox")


async def test_a_second_gateways_writes_are_seen_by_the_first(tmp_path: Path) -> None:
    clock = Clock()
    first, second = (SqliteLedger(tmp_path / "l.db", clock=clock) for _ in range(2))
    for number in range(5):
        (mine,) = await first.reserve(hold(f"a{number}", CAP))
        (theirs,) = await second.reserve(hold(f"b{number}", CAP))
        assert (mine.reserved, theirs.reserved) == (20 * number + 10, 20 * number + 20)
    await first.close()
    await second.close()

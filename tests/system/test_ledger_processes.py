"""Several real processes on one ledger, some of them killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ledger_worker import TOTAL, opened
from ledgers import figures, line

from gateway.types import Unit

pytestmark = pytest.mark.system

SUPPORT = Path(__file__).parents[1] / "support"

FILLED = """
import asyncio, resource, sys
from pathlib import Path
from ledgers import figures, hold, line, settle
from gateway.errors import LedgerUnavailable
from gateway.ledger.sqlite import SqliteLedger

CAP = line(10, 10**9)

async def main():
    ledger = SqliteLedger(Path(sys.argv[1]))
    await ledger.reserve(hold("old", CAP))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # no file may grow past it: the disk is full
    held, refused = ["old"], 0
    for number in range(150):
        try:
            await ledger.reserve(hold(f"r{number}", CAP))
            held.append(f"r{number}")
        except LedgerUnavailable:
            refused += 1
    assert len(held) > 1 and refused > 1, (held, refused)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert await figures(ledger, CAP) == (0, 10 * len(held)), held
    for id_ in held:
        assert await settle(ledger, hold(id_, CAP), 7) == "settled"
    assert await figures(ledger, CAP) == (7 * len(held), 0)
    assert len(await ledger.outbox(1000)) == len(held)
    await ledger.close()

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    return f"{request.getfixturevalue('redis_url')}#{request.getfixturevalue('redis_prefix')}"


@contextmanager
def workers(where: str, count: int, *task: object) -> Iterator[list[subprocess.Popen[str]]]:
    started = [
        subprocess.Popen(
            [sys.executable, SUPPORT / "ledger_worker.py", where, f"w{number}", *map(str, task)],
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    yield started
    for process in started:
        process.kill()
        process.communicate()


async def test_four_processes_share_a_cap_that_fits_37_of_200(where: str) -> None:
    with workers(where, 4, "race", 50, 27, 37 * 27 + 26) as processes:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        outputs = [process.communicate("go\n", timeout=60)[0] for process in processes]
    assert sum(int(output) for output in outputs) == 37
    ledger = opened(where)
    assert await figures(ledger, line(0, 1, window=TOTAL)) == (37 * 27, 0)
    records = [each for _, each in await ledger.outbox(1000)]
    assert (len({each.id for each in records}), sum(each.cost or 0 for each in records)) == (37, 37 * 27)
    await ledger.close()


async def test_a_killed_process_loses_no_settlement_and_leaks_no_hold(where: str) -> None:
    with workers(where, 2, "loop", 100) as (killed, other):
        assert killed.stdout is not None
        assert other.stdout is not None
        told = "".join([killed.stdout.readline() for _ in range(500)])
        for _ in range(500):
            other.stdout.readline()
        killed.kill()
        told += killed.stdout.read()
        for _ in range(200):
            other.stdout.readline()
    *lines, _ = told.split("\n")  # the last may be torn: nobody was told what it would have said
    settled = {each.removeprefix("settled ") for each in lines if each.startswith("settled ")}
    assert settled
    ledger = opened(where)
    ends = time.monotonic() + 30
    budget, calls = line(0, 1, window=TOTAL), line(0, 1, unit=Unit.CONCURRENT)
    while (await figures(ledger, budget))[1]:
        await ledger.expire()  # the holds of the dead last a second of real time
        assert time.monotonic() < ends
    records = {each.id: each for _, each in await ledger.outbox(10**6)}
    assert settled <= {id_ for id_, each in records.items() if each.version == 1}
    assert len(await ledger.outbox(10**6)) == len(records)
    assert await figures(ledger, budget) == (sum(each.cost or 0 for each in records.values()), 0)
    assert await figures(ledger, calls) == (0, 0)
    assert {each.cost for each in records.values()} <= {99, 100}
    await ledger.close()


def test_a_disk_that_is_full_holds_what_was_answered_and_nothing_else(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    told = subprocess.run(
        [sys.executable, "-c", FILLED, tmp_path / "ledger.db"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr

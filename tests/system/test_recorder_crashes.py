"""Real processes with a spool, killed with SIGKILL and starved of disk: what was promised is in SQL, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from databases import a_record, count, stored

from gateway.ledger.memory import MemoryLedger
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from gateway.spool import Spool
from gateway.sql.migrate import upgrade

pytestmark = pytest.mark.system

SUPPORT = Path(__file__).parents[1] / "support"

WRITER = """
import asyncio, itertools, sys
from databases import a_record
from gateway.ledger.memory import MemoryLedger
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from pathlib import Path

async def main():
    recorder = Recorder(MemoryLedger(), "postgresql://nobody@127.0.0.1:1/none", Path(sys.argv[1]), Metrics())
    await recorder.start()
    for number in itertools.count():
        recorder.spool(a_record(f"r{number}"))
        sys.stdout.write(f"r{number}\\n")
        sys.stdout.flush()
        if number % 50 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""

MOVER = """
import asyncio, sys
from gateway.ledger.memory import MemoryLedger
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from pathlib import Path

async def main():
    recorder = Recorder(MemoryLedger(), sys.argv[2], Path(sys.argv[1]), Metrics())
    await recorder.start()
    print("started", flush=True)
    while recorder.pending():
        await asyncio.sleep(0.01)
    print("done", flush=True)

asyncio.run(main())
"""

STARVED = """
import asyncio, resource, signal, sys
from databases import a_record
from gateway.ledger.memory import MemoryLedger
from gateway.metrics import Metrics
from gateway.recorder import Recorder
from pathlib import Path

async def main():
    metrics = Metrics()
    recorder = Recorder(MemoryLedger(), sys.argv[2], Path(sys.argv[1]), metrics)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    for number in range(200):
        recorder.spool(a_record(f"r{number}"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert recorder.pending() == 200, recorder.pending()
    text = metrics.render().decode()
    assert 'tollgate_records_failed_total{reason="unspooled"}' in text, text
    await recorder.drain(30)

asyncio.run(main())
"""


def process(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_a_record_is_safe_from_sigkill_as_soon_as_spool_returns(tmp_path: Path) -> None:
    writer = process(WRITER, tmp_path / "spool")
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(3_000)]
    writer.send_signal(signal.SIGKILL)
    lines += writer.stdout.readlines()[:-1]  # the last one may be cut short
    promised = [line.strip() for line in lines if line.startswith("r")]  # the rest is the log
    writer.wait()
    url = f"sqlite:///{tmp_path}/records.db"
    upgrade(url)
    recorder = Recorder(MemoryLedger(), url, tmp_path / "spool", Metrics())
    await recorder.start()
    assert recorder.pending() >= len(promised)
    await recorder.drain(60)
    assert len(promised) > 2_000
    assert set(promised) <= set(stored(url))
    assert recorder.pending() == 0


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_mover_killed_again_and_again_writes_each_record_once(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = (
        f"sqlite:///{tmp_path}/records.db"
        if database == "sqlite"
        else str(request.getfixturevalue("postgres_schema_url"))
    )
    upgrade(url)
    spool = Spool(tmp_path / "spool", segment_bytes=200_000)
    costs = [random.Random(number).randrange(10**9) for number in range(4_000)]
    for number, cost in enumerate(costs):
        spool.append(a_record(f"r{number}", cost=cost))
    spool.seal()
    spool.sync()
    chance = random.Random(3)
    for _ in range(6):
        mover = process(MOVER, tmp_path / "spool", url)
        assert mover.stdout is not None
        mover.stdout.readline()
        try:
            mover.wait(chance.random() * 0.4)
        except subprocess.TimeoutExpired:
            mover.kill()
        mover.wait()
        mover.stdout.close()
    last = process(MOVER, tmp_path / "spool", url)
    output, _ = last.communicate(timeout=60)
    assert "done" in output
    assert count(url) == len(costs)
    assert {id_: row["cost"] for id_, row in stored(url).items()} == {f"r{at}": cost for at, cost in enumerate(costs)}
    assert not list((tmp_path / "spool").glob("spool-*"))


def test_a_process_that_may_write_no_more_keeps_records_in_memory_until_sql_has_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    upgrade(url)
    starved = process(STARVED, tmp_path / "spool", url)
    starved.communicate(timeout=60)
    assert starved.returncode == 0
    assert count(url) == 200

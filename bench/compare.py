"""Side by side: the same requests through each contender, in turn, A B A B.

What is measured runs on the first core, everything around it (clients, provider, Redis) on the others.  Writes
`docs/benchmark.json`, `docs/benchmark.md` and `docs/benchmark.png`.  `python -m bench` starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import contenders, requests
from bench.contenders import PROVIDER, REDIS, ROOT, Contender, Maker, Missing
from bench.load import Load
from bench.machine import Process, cores, started, waited_for
from bench.report import write

ROUNDS = 2
ENDING_S = 15.0
"""For what is written when nothing is measured any more."""
SOAK_REQUESTS = 500_000
MEASURED, AROUND = cores()
Row = dict[str, Any]


class Bench:
    """Contenders that run, and rows of what was measured."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.until = 0.0
        self.running: dict[str, tuple[Contender, Process | None]] = {}
        self.rows: list[Row] = []
        self.missing: dict[str, str] = {}
        self._port = contenders.FIRST

    def enter(self, stack: contextlib.ExitStack, name: str, make: Maker) -> None:
        """Installs if need be, starts and waits; what cannot be is noted as missing."""
        self._port += 1
        try:
            found: Contender = make(self.folder, self._port)
            if not found.command:
                self.running[name] = found, None
                return
            began = time.monotonic()
            process = stack.enter_context(started(found.start(MEASURED, self.folder)))
            body = requests.short(found.model).encode()
            waited_for(process, found.url, found.within_s, body, {"content-type": "application/json", **found.headers})
        except (Missing, TimeoutError, OSError, subprocess.SubprocessError) as reason:
            self.missing[name] = str(reason)
            print(f"{name}: left out. {reason}", flush=True)
            return
        self.running[name] = found, process
        self.rows.append({"part": "start", "contender": name, "ready_s": round(time.monotonic() - began, 2)})

    def send(self, part: str, name: str, body: str, **how: float) -> Row:
        """One measurement."""
        contender, process = self.running[name]
        how = {"seconds": self.seconds, **how}
        load = Load(contender.url, body, contender.headers, **how)  # type: ignore[arg-type]  # connections are whole
        before = process.cpu_s() if process else 0.0
        found: Row = sent(load)
        cpu = (process.cpu_s() - before) if process else 0.0
        done = max(1, found["requests"])
        row = {"part": part, "contender": name, "connections": load.connections, "rate": load.rate, **found}
        row |= {"per_s": round(found["requests"] / found["seconds"], 1), "cpu_us": round(cpu / done * 1e6, 1)}
        self.rows.append(row)
        note = f"  FAILED {found['failed']}: {found['first_failure'][:120]}" if found["failed"] else ""
        print(f"{part:22}{name:18}{row['per_s']:>10.0f}/s p50 {row['p50']:8.2f} p99 {row['p99']:8.2f} ms "
              f"CPU {row['cpu_us']:8.0f} us{note}", flush=True)  # fmt: skip
        return row

    def turns(self) -> Iterator[str]:
        """Each contender once in every round, while there is time."""
        for _ in range(ROUNDS):
            for name in self.running:
                if time.monotonic() < self.until:
                    yield name


def sent(load: Load) -> Row:
    """The load from a process of its own."""
    command = [sys.executable, "-m", "bench.load", json.dumps(asdict(load))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=load.seconds + 60, cwd=ROOT, check=True)
    found: Row = json.loads(done.stdout)
    return found


def throughput(bench: Bench) -> None:
    """As much as goes: sixteen clients that never wait."""
    for kind, make in requests.KINDS.items():
        for name in bench.turns():
            bench.send(f"throughput: {kind}", name, make(bench.running[name][0].model), connections=16)


def latency(bench: Bench) -> None:
    """One client, and then half of what each contender bore at most."""
    for name in bench.turns():
        bench.send("alone: long", name, requests.long(bench.running[name][0].model), connections=1)
    most = {
        row["contender"]: row["per_s"] for row in bench.rows if row["part"] == "throughput: long" and row["requests"]
    }
    for name in bench.turns():
        rate = most.get(name, 200.0) / 2
        body = requests.long(bench.running[name][0].model)
        bench.send("half load: long", name, body, connections=64, rate=min(rate, 5000.0))


def streams(bench: Bench) -> None:
    """Streams whose events come two milliseconds apart: each is a packet of its own."""
    for name in bench.turns():
        body = requests.stream(bench.running[name][0].model, gap_ms=2)
        row = bench.send("streams: paced", name, body, connections=20, seconds=max(3.0, bench.seconds))
        row["cpu_us_per_event"] = round(row["cpu_us"] / requests.EVENTS, 2)
        bench.send("first token", name, body, connections=1)


def memory(bench: Bench, count: int = 1000) -> None:
    """At rest, and with a thousand streams open."""
    for name, (contender, process) in bench.running.items():
        if process is None or time.monotonic() > bench.until:
            continue
        rest = process.memory_mb()
        body = requests.stream(contender.model, hold=True)
        load = Load(contender.url, body, contender.headers, connections=count, seconds=6.0, hold=True)
        command = [sys.executable, "-m", "bench.load", json.dumps(asdict(load))]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as clients:
            time.sleep(5.0)
            with_streams = process.memory_mb()
            clients.wait(60)
        row = {"part": "memory", "contender": name, "rest_mb": round(rest, 1), "streams": count}
        bench.rows.append(row | {"added_mb": round(with_streams - rest, 1)})
        print(
            f"memory                {name:18} {rest:.0f} MB at rest, {with_streams - rest:+.0f} MB with {count} streams"
        )


def workers(bench: Bench) -> None:
    """What two workers spend for a request that one serves: the same means that two bear twice as much."""
    for name in ("tollgate", TWO_WORKERS) * ROUNDS:
        if name in bench.running and time.monotonic() < bench.until:
            bench.send("workers", name, requests.long("auto"), connections=32)


def difficulty(bench: Bench) -> None:
    """With a classifier that reads each prompt, beside the same without."""
    for name in ("tollgate", WITH_DIFFICULTY) * ROUNDS:
        if name in bench.running and time.monotonic() < bench.until:
            bench.send("difficulty", name, requests.long("auto"), connections=16)


def soak(bench: Bench) -> None:
    """Half a million requests, or as many as there is time for: what a worker holds after a fifth and at the end."""
    _, process = bench.running["tollgate"]
    assert process is not None  # it is ours, and runs
    sent_before = 0
    for share in (0.2, 1.0):
        wanted = int(SOAK_REQUESTS * share) - sent_before
        left_s = (bench.until - time.monotonic()) * (0.25 if share < 1 else 1.0)
        row = bench.send("soak", "tollgate", requests.long("auto"), connections=16, seconds=left_s, requests=wanted)
        sent_before += row["requests"]
        row |= {"sent": sent_before, "rest_mb": round(process.memory_mb(), 1)}
        print(f"soak                  {row['rest_mb']} MB after {sent_before:,} requests", flush=True)


TWO_WORKERS, WITH_DIFFICULTY = "tollgate, 2 workers", "tollgate, difficulty"
ASIDE = {
    "workers": (TWO_WORKERS, contenders.tollgate(TWO_WORKERS, workers=2)),
    "difficulty": (WITH_DIFFICULTY, contenders.tollgate(WITH_DIFFICULTY, policies=contenders.DIFFICULTY)),
}
"""Who runs for one part only."""
PARTS = {
    "throughput": throughput,
    "difficulty": difficulty,
    "latency": latency,
    "streams": streams,
    "memory": memory,
    "workers": workers,
    "soak": soak,
}
ALONE = frozenset({"difficulty", "workers", "soak"})
"""Parts that are about us."""


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """The provider, and a Redis of our own."""
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "bench.upstream", str(PROVIDER)]
        stack.enter_context(started(Process(command, AROUND, folder / "provider.log", cwd=ROOT)))
        with contextlib.suppress(Missing):
            redis = contenders.needed("redis-server", "")
            command = [redis, "--port", str(REDIS), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            stack.enter_context(started(Process(command, AROUND, folder / "redis.log", cwd=folder)))
        time.sleep(1.5)
        yield


def main(parts: Sequence[str], only: Sequence[str], seconds: float, within_s: float) -> None:
    """Runs the parts, as far as there is time, and writes the report."""
    until = time.monotonic() + within_s - ENDING_S
    os.sched_setaffinity(0, AROUND)
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(surroundings(folder))
        bench = Bench(folder, seconds)
        bench.until = until
        for each, make in contenders.ALL.items():
            if each in only if only else each == "tollgate" or not ALONE.issuperset(parts):
                bench.enter(stack, each, make)
        for part in parts:
            with contextlib.ExitStack() as for_it:
                if part in ASIDE:
                    bench.enter(for_it, *ASIDE[part])
                if time.monotonic() < until:
                    PARTS[part](bench)
                else:
                    bench.missing[part] = "no time was left for it"
            bench.running.pop(ASIDE[part][0] if part in ASIDE else "", None)
        facts = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        if set(PARTS) - {"soak"} <= set(parts):
            write(ROOT / "docs", bench.rows, bench.missing, facts | {"load": os.getloadavg()[0]})

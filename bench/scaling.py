"""One, two and four gateway processes on one Redis: what a request costs each of them, and Redis.

    python -m bench.scaling [--seconds 5] [--rounds 2]

Prints the table of docs/scaling.md.  Clients, provider, Redis and gateways share this machine's cores, so requests a
second end where the machine does; CPU for each request is what tells whether another gateway adds another share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import redis

from bench import contenders, requests
from bench.compare import surroundings
from bench.load import Load
from bench.machine import Process, started, waited_for

COUNTS = (1, 2, 4)
CONNECTIONS = 32
HEAD = "| gateway processes | requests/s | CPU us a request, gateways | CPU us a request, Redis | failed |"


def measured(folder: Path, first_port: int, count: int, seconds: float) -> tuple[float, float, float, int]:
    """Requests a second, CPU of a request in all gateways and in Redis (us), failures."""
    everywhere = os.sched_getaffinity(0)
    made = [contenders.tollgate()(folder, first_port + number) for number in range(count)]
    with contextlib.ExitStack() as stack:
        gateways = [stack.enter_context(started(each.start(everywhere, folder))) for each in made]
        for each, gateway in zip(made, gateways, strict=True):
            body = requests.short(each.model).encode()
            waited_for(gateway, each.url, each.within_s, body, {"content-type": "application/json", **each.headers})
        store = stack.enter_context(redis.Redis(port=contenders.REDIS))
        before = _spent(gateways), _redis_s(store)
        found = _answers([_client(each, CONNECTIONS // count, seconds) for each in made])
        done = max(1, sum(each["requests"] for each in found))
        spent, stored = (after - then for after, then in zip((_spent(gateways), _redis_s(store)), before, strict=True))
    per_s = sum(each["requests"] / each["seconds"] for each in found)
    return per_s, spent / done * 1e6, stored / done * 1e6, int(sum(each["failed"] for each in found))


def _client(gateway: contenders.Contender, connections: int, seconds: float) -> subprocess.Popen[str]:
    load = Load(gateway.url, requests.long(gateway.model), gateway.headers, connections=connections, seconds=seconds)
    command = [sys.executable, "-m", "bench.load", json.dumps(asdict(load))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=contenders.ROOT)


def _answers(clients: list[subprocess.Popen[str]]) -> list[dict[str, float]]:
    return [json.loads(client.communicate(timeout=120)[0]) for client in clients]


def _spent(gateways: list[Process]) -> float:
    return sum(gateway.cpu_s() for gateway in gateways)


def _redis_s(store: redis.Redis) -> float:
    info = store.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main(seconds: float, rounds: int) -> None:
    """The better of the rounds, by CPU."""
    port, rows = contenders.FIRST + 100, dict[int, tuple[float, float, float, int]]()
    with tempfile.TemporaryDirectory(prefix="tollgate-scaling-") as name, surroundings(Path(name)):
        for _ in range(rounds):
            for count in COUNTS:
                row = measured(Path(name), port, count, seconds)
                rows[count] = min(rows.get(count, row), row, key=lambda each: each[1])
                port += count
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{HEAD}\n|---|---|---|---|---|")
    for count, (per_s, gateways_us, redis_us, failed) in rows.items():
        print(f"| {count} | {per_s:,.0f} | {gateways_us:.0f} | {redis_us:.0f} | {failed} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    main(options.seconds, options.rounds)

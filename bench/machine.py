"""Processes: started on chosen cores, watched for their CPU and memory, ended for sure.  Linux."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cores() -> tuple[set[int], set[int]]:
    """Those for what is measured, and those for everything around it."""
    free = sorted(os.sched_getaffinity(0))
    return ({free[0]}, set(free[1:]) or {free[0]})


class Process:
    """A process and its children, in a group of their own."""

    def __init__(
        self, command: list[str], on: set[int], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.log = log
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, on)  # children begin where their parent is
        try:
            with log.open("wb") as out:
                self._main = subprocess.Popen(
                    command,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, ours)

    @property
    def alive(self) -> bool:
        return self._main.poll() is None

    def pids(self) -> list[int]:
        """Every process of its session that still runs."""
        session = self._main.pid
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(fields[3]) == session:
                        found.append(int(entry.name))
        return found

    def cpu_s(self) -> float:
        """User and system time of all of them so far."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total * TICK_S

    def memory_mb(self) -> float:
        """Memory of its own (what is shared with others is counted in part)."""
        kb = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        kb += int(line.split()[1])
        return kb / 1024

    def end(self) -> None:
        """Asks, then insists."""
        for number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._main.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._main.wait(patience_s)
                if not self.pids():
                    return


def answers(url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a request gets a 200."""
    request = urllib.request.Request(url, data, dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def waited_for(process: Process, url: str, within_s: float, data: bytes | None, headers: Mapping[str, str]) -> float:
    """Seconds until it answered.  Raises TimeoutError with the end of its log."""
    began = time.monotonic()
    while time.monotonic() - began < within_s and process.alive:
        if answers(url, data, headers):
            return time.monotonic() - began
        time.sleep(0.02)
    raise TimeoutError(f"not ready within {within_s:.0f} s: {process.log.read_text(errors='replace')[-400:]}")


@contextlib.contextmanager
def started(process: Process) -> Iterator[Process]:
    """Ended whatever happens."""
    try:
        yield process
    finally:
        process.end()

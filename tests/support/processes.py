"""Real processes for tests: a gateway with a configuration of its own, and the simulated provider over TCP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from services import free_port

START_S = 60.0  # generous: a shared machine may be busy
TOLLGATE = [sys.executable, "-c", "from gateway.cli import main; main()"]

web = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
"""Each request on a connection of its own, like `httpx.get`, which makes a context for TLS every time: 40 ms of CPU."""


@dataclass(slots=True)
class Running:
    """A process and everything it started.  `log` holds what it said."""

    command: list[str]
    folder: Path
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, in a session of its own so that its children can be ended with it."""
        env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")} | self.env
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def signal(self, number: int) -> None:
        """To the process alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to it and its children; nothing is tidied up."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM, and the status it ends with."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(timeout_s)
        self.kill()
        return status

    def said(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, url: str) -> None:
        """Returns when `url` answers 200."""
        assert self.process is not None
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            assert self.process.poll() is None, f"it ended with status {self.process.returncode}:\n{self.said()}"
            try:
                if web.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not yet
            time.sleep(0.02)
        raise AssertionError(f"{url} did not answer within {START_S} s:\n{self.said()}")


class GatewayProcess:
    """`tollgate serve` on a free port.  In the configuration, {folder} is a directory of its own."""

    def __init__(self, folder: Path, config: str, *, workers: int = 1, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "gateway.yaml"
        self.config.write_text(config.replace("{folder}", str(folder)))
        command = [*TOLLGATE, "serve", "--config", str(self.config), "--port", str(self.port)]
        command += ["--workers", str(workers)] if workers > 1 else []
        self.running = Running(command, folder, folder / "gateway.log", env or {})

    @property
    def url(self) -> str:
        """Without /v1."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it can serve."""
        self.running.start()
        self.running.wait_for(f"{self.url}/readyz")

    def kill(self) -> None:
        """As kill -9 does."""
        self.running.kill()

    def stop(self) -> int:
        """As a supervisor does; the status it ends with."""
        return self.running.stop()

    def said(self) -> str:
        """Its log."""
        return self.running.said()

    def cli(self, *arguments: str) -> str:
        """What a tollgate command on the same configuration prints."""
        command = [*TOLLGATE, *arguments, "--config", str(self.config)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout


class SimulatedProcess:
    """The simulated provider over TCP: the other side of a real connection."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "gateway.simulated", "--port", str(self.port)]
        self.running = Running(command, folder, folder / "simulated.log")

    def start(self) -> None:
        """Returns when it can serve."""
        self.running.start()
        self.running.wait_for(f"{self.url}/stats")

    def kill(self) -> None:
        """Gone at once."""
        self.running.kill()

    def stats(self) -> dict[str, Any]:
        """How many calls came, were answered to the end, were abandoned."""
        found: dict[str, Any] = web.get(f"{self.url}/stats").json()
        return found

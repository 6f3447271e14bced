"""Processes: binds the address once, runs one worker here or several beside each other, and brings dead ones back."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType

import uvicorn

from gateway import settings
from gateway.settings import Settings

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Where workers' metrics meet: never a directory that was there before, which another gateway may use or empty."""
BACKLOG = 2048
AFTERWARDS_S = 15.0
"""For what is settled and recorded after the last request."""
POLL_S = 0.2
RESTART_PAUSE_S = 1.0
START_S = 60.0
LAST_REQUEST_S = 0.3
"""After the last connection was accepted, for its request to come."""


def serve(config: Path, host: str | None = None, port: int | None = None, workers: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT.  Raises SettingsError; SystemExit when the address is taken."""
    found = settings.load(config)
    bound = _bind(host or found.server.host, found.server.port if port is None else port)
    count = workers or found.server.workers
    if count == 1:
        os.environ.pop(METRICS_DIR, None)  # somebody else's
        work(str(config), bound)
    else:
        times = found.server.timeouts
        Workers(str(config), bound, count, times.announce_s + times.drain_s + AFTERWARDS_S).run()


def work(config: str, bound: socket.socket, ready: Event | None = None) -> None:
    """One worker on an address that is already bound; `ready` is set when it serves."""
    gc.disable()  # until all is there that stays: see gateway.app
    from gateway import logs  # noqa: PLC0415  # the parent of several workers needs none of it
    from gateway.app import Gateway, load_from  # noqa: PLC0415  # the same
    from gateway.protocol import Protocol  # noqa: PLC0415  # the same

    logs.configure()
    times = settings.load(Path(config)).server.timeouts
    gateway = Gateway(load_from(Path(config)))
    server = Server(
        uvicorn.Config(
            gateway,
            loop="uvloop",
            http=Protocol,
            ws="none",
            proxy_headers=False,
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(times.drain_s),
            timeout_keep_alive=math.ceil(times.keep_alive_s),
        ),
        gateway.drain,
        times.announce_s,
        ready,
    )
    server.run(sockets=[bound])


class Server(uvicorn.Server):
    """Leaves so that nobody notices.

    On SIGTERM it says that it is leaving (readyz, `connection: close`) while it still accepts, then stops accepting
    while it still reads, then finishes what is in flight within its bound.
    """

    def __init__(
        self, config: uvicorn.Config, drain: Callable[[], None], announce_s: float, ready: Event | None
    ) -> None:
        super().__init__(config)
        self._drain, self._announce_s, self._ready = drain, announce_s, ready
        self._deaf_at = self._exit_at = math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self._ready is not None and self.started:
            self._ready.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first SIGTERM is announced; a second one, or SIGINT from a terminal, is not."""
        if sig != signal.SIGTERM or self._exit_at < math.inf:
            return super().handle_exit(sig, frame)
        self._captured_signals.append(sig)
        self._drain()
        self._deaf_at = time.monotonic() + self._announce_s
        self._exit_at = self._deaf_at + LAST_REQUEST_S
        return None

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn: ten times a second."""
        now = time.monotonic()
        if now >= self._deaf_at:
            self._deaf_at = math.inf
            for server in self.servers:
                server.close()
        if now >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)


class Workers:
    """The parent: no requests of its own, only children and signals.  SIGUSR2 replaces them one after another."""

    def __init__(self, config: str, bound: socket.socket, count: int, grace_s: float) -> None:
        self.config, self.bound, self.count, self.grace_s = config, bound, count, grace_s
        self.children: list[BaseProcess] = []
        self.retired: list[BaseProcess] = []
        self.serves: dict[BaseProcess, Event] = {}
        self.leaving = self.rolling = False
        self.spawn = multiprocessing.get_context("spawn")

    def run(self) -> None:
        """Until told to leave; metrics of the workers meet in a directory of this instance's own."""
        shared = tempfile.mkdtemp(prefix="tollgate-metrics-")
        os.environ[METRICS_DIR] = shared
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        signal.signal(signal.SIGHUP, self._pass_on)
        signal.signal(signal.SIGUSR2, self._roll)
        try:
            self.children = [self._child() for _ in range(self.count)]
            while not self.leaving:
                time.sleep(POLL_S)
                self._revive()
                if self.rolling:
                    self.rolling = False
                    self._replace()
            for child in [*self.children, *self.retired]:
                child.join(self.grace_s)
        finally:
            for child in [*self.children, *self.retired]:
                child.kill()
            shutil.rmtree(shared, ignore_errors=True)

    def _replace(self) -> None:
        """Each worker leaves when its successor serves; a successor that does not start changes nothing."""
        for index, old in enumerate(self.children):
            child = self._child()
            ready = self.serves[child]
            ends = time.monotonic() + START_S
            while not ready.wait(POLL_S) and child.is_alive() and not self.leaving and time.monotonic() < ends:
                pass
            if self.leaving or not ready.is_set():
                child.kill()
                return
            self.children[index] = child
            self.retired = [each for each in self.retired if each.is_alive()] + [old]
            del self.serves[old]
            old.terminate()
            sys.stderr.write(f"worker replaced: {old.pid} by {child.pid}\n")

    def _child(self) -> BaseProcess:
        ready = self.spawn.Event()
        child = self.spawn.Process(target=work, args=(self.config, self.bound, ready), name="tollgate-worker")
        self.serves[child] = ready  # kept: a child opens it by its name
        child.start()
        return child

    def _revive(self) -> None:
        for index, child in enumerate(self.children):
            if not child.is_alive() and not self.leaving:
                time.sleep(RESTART_PAUSE_S)
                self.children[index] = self._child()

    def _leave(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a signal handler's signature
        self.leaving = True
        for child in self.children:
            child.terminate()

    def _roll(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a signal handler's signature
        self.rolling = True

    def _pass_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a signal handler's signature
        for child in self.children:
            if child.pid is not None:
                os.kill(child.pid, number)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        raise SystemExit(f"tollgate: cannot listen on {host}:{port}: {error.strerror}") from error
    bound.listen(BACKLOG)
    bound.set_inheritable(True)
    return bound


def address(found: Settings, host: str | None, port: int | None) -> str:
    """Where clients find this gateway."""
    return f"http://{host or found.server.host}:{found.server.port if port is None else port}"

"""Processes: binds the address once, runs one worker here or several beside each other, and brings dead ones back."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import uvicorn

from gateway import settings
from gateway.settings import Settings

BACKLOG = 2048
GRACE_S = 30
POLL_S = 0.2
RESTART_PAUSE_S = 1.0


def serve(config: Path, host: str | None = None, port: int | None = None, workers: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT.  Raises SettingsError; SystemExit when the address is taken."""
    found = settings.load(config)
    bound = _bind(host or found.server.host, found.server.port if port is None else port)
    count = workers or found.server.workers
    if count == 1:
        work(str(config), bound)
    else:
        Workers(str(config), bound, count).run()


def work(config: str, bound: socket.socket) -> None:
    """One worker on an address that is already bound."""
    from gateway import logs  # noqa: PLC0415  # the parent of several workers needs none of it
    from gateway.app import Gateway, load_from  # noqa: PLC0415  # the same

    logs.configure()
    server = uvicorn.Server(
        uvicorn.Config(
            Gateway(load_from(Path(config))),
            loop="uvloop",
            http="httptools",
            ws="none",
            proxy_headers=False,
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=75,
        )
    )
    server.run(sockets=[bound])


class Workers:
    """The parent: no requests of its own, only children and signals."""

    def __init__(self, config: str, bound: socket.socket, count: int) -> None:
        self.config, self.bound, self.count = config, bound, count
        self.children: list[BaseProcess] = []
        self.leaving = False
        self.spawn = multiprocessing.get_context("spawn")

    def run(self) -> None:
        """Until told to leave; metrics of the workers meet in a directory of this instance's own."""
        shared = tempfile.mkdtemp(prefix="tollgate-metrics-")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        signal.signal(signal.SIGHUP, self._pass_on)
        try:
            self.children = [self._child() for _ in range(self.count)]
            while not self.leaving:
                time.sleep(POLL_S)
                self._revive()
            for child in self.children:
                child.join(GRACE_S + 5)
        finally:
            for child in self.children:
                child.kill()
            shutil.rmtree(shared, ignore_errors=True)

    def _child(self) -> BaseProcess:
        child = self.spawn.Process(target=work, args=(self.config, self.bound), name="tollgate-worker")
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

"""Fixtures that start real processes and end them, whatever the test did."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import GatewayProcess, SimulatedProcess

NODE = Path(__file__).parent / "node"

Start = Callable[..., GatewayProcess]
RunNode = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts gateways: `start(config, workers=2)`."""
    started: list[GatewayProcess] = []

    def go(config: str, **options: Any) -> GatewayProcess:
        gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), config, **options)
        started.append(gateway)
        gateway.start()
        return gateway

    yield go
    for gateway in started:
        gateway.kill()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedProcess]:
    """A simulated provider over TCP."""
    process = SimulatedProcess(tmp_path_factory.mktemp("provider"))
    process.start()
    yield process
    process.kill()


@pytest.fixture(scope="session")
def run_node() -> RunNode:
    """Runs a script of tests/system/node where the npm packages pinned there are installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: the npm SDK is not tested here")
    folder = _installed(npm)

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        copy = folder / script
        copy.write_text((NODE / script).read_text())
        return subprocess.run([node, str(copy), *arguments], capture_output=True, text=True, timeout=120, check=False)

    return run


def _installed(npm: str) -> Path:
    """The pinned packages, installed once, in a cache outside of the repository."""
    package = (NODE / "package.json").read_text()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(tempfile.gettempdir()) / f"tollgate-tests-{os.getuid()}")
    folder = cache / f"node-{hashlib.sha256(package.encode()).hexdigest()[:12]}"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(package)
    command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install the SDK within 300 s: the npm SDK is not tested here")
    if done.returncode:
        pytest.skip(f"npm could not install the SDK, so it is not tested here: {done.stderr.strip()[:300]}")
    (folder / "done").touch()
    return folder

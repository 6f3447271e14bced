"""Where other people's clients are installed: once per set of pinned versions, in a cache outside of the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

WORKS = Path(__file__).parents[1] / "system" / "works"
INSTALL_S = 900


def python_clients(pins: str) -> Path:
    """The binaries of an environment with exactly the packages in the file `pins`."""
    folder = _cache(pins)
    if not (folder / "done").exists():
        _install([sys.executable, "-m", "venv", "--clear", str(folder)], folder.parent)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        _install([*pip, "--requirement", str(WORKS / pins)], folder)
        (folder / "done").touch()
    return folder / "bin"


def node_clients() -> Path:
    """A directory where the packages of package.json can be imported."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: its clients are not run here")
    folder = _cache("package.json")
    if not (folder / "done").exists():
        shutil.copy(WORKS / "package.json", folder)
        _install([npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"], folder)
        (folder / "done").touch()
    return folder


def _cache(pins: str) -> Path:
    digest = hashlib.sha256((WORKS / pins).read_bytes()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path(tempfile.gettempdir()) / f"tollgate-tests-{os.getuid()}")
    folder = base / f"works-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _install(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the clients were not installed within {INSTALL_S} s, so they are not run here")
    if done.returncode:
        pytest.skip(f"the clients could not be installed, so they are not run here: {done.stderr.strip()[-300:]}")

"""What a release is held to: pins with hashes, one version everywhere, and promises with tests that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from packaging.utils import canonicalize_name

from gateway import __version__

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: \\)?$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def pins(name: str) -> dict[str, str]:
    return {canonicalize_name(package): version for package, version in PIN.findall((ROOT / name).read_text())}


def test_every_pin_has_a_hash_and_is_the_one_that_is_tested() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked, tested = pins("requirements.lock"), pins("constraints.txt")
    assert len(locked) > 30
    assert {name: version for name, version in locked.items() if tested.get(name) != version} == {}
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert not [block.split("==")[0] for block in blocks if "--hash=sha256:" not in block]
    assert "://" not in text


def test_the_image_installs_what_is_locked() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes --requirement requirements.lock" in dockerfile
    assert "!requirements.lock" in (ROOT / ".dockerignore").read_text()


def test_one_version_is_told_everywhere() -> None:
    chart = yaml.safe_load((ROOT / "helm" / "tollgate" / "Chart.yaml").read_text())
    assert str(chart["appVersion"]) == __version__
    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_threat_has_tests_and_they_exist() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("| threat |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert len(rows) >= 15
    for row in rows:
        named = TEST.findall(row)
        assert named, row
        for path, test in named:
            assert re.search(rf"def {test}\(", (ROOT / path).read_text()), f"{path} has no {test}"


def test_the_page_of_clients_names_the_versions_that_are_run() -> None:
    works = ROOT / "tests" / "system" / "works"
    packages = json.loads((works / "package.json").read_text())["dependencies"].items()
    pinned = PIN.findall((works / "clients.txt").read_text() + (works / "aider.txt").read_text())
    run = {f"{name} {version}" for name, version in (*packages, *pinned)}
    table = (ROOT / "docs" / "works-with.md").read_text().partition("| version |")[2].partition("\n\n")[0]
    cells = [row.rstrip(" |").rpartition("| ")[2] for row in table.splitlines()[2:]]
    named = {each.removeprefix("npm ") for cell in cells for each in re.split("[,;] ", cell)}
    assert len(named) > 15
    assert named <= run

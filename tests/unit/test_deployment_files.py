"""Dockerfile, compose.yaml and the chart, as far as they can be held to something without their tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tollgate"
TEMPLATES = sorted(path for path in CHART.rglob("templates/**/*") if path.is_file())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)


def actions(path: Path) -> Iterator[str]:
    yield from ACTION.findall(path.read_text())


def paths(value: Any, before: str = "") -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield f"{before}{key}"
        yield from paths(inner, f"{before}{key}.")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_block_of_a_template_is_closed(path: Path) -> None:
    depth = 0
    for action in actions(path):
        word = action.split(" ", 1)[0]
        depth += (word in {"if", "with", "range", "define", "block"}) - (word == "end")
        assert depth >= 0, f"an `end` too many in {path.name}"
    assert depth == 0, f"{path.name} lacks an `end`"
    assert path.read_text().count("{{") == len(list(actions(path)))


def test_every_value_a_template_uses_exists_and_every_value_is_used() -> None:
    used = {
        name for path in TEMPLATES for action in actions(path) for name in re.findall(r"\.Values\.([\w.]+)", action)
    }
    known = set(paths(VALUES)) | {"nameOverride"}
    assert used <= known, f"not in values.yaml: {sorted(used - known)}"
    leaves = {name for name in known if not any(other.startswith(f"{name}.") for other in known)}
    unused = {name for name in leaves if not any(name == one or name.startswith(f"{one}.") for one in used)}
    assert not unused, f"no template uses {sorted(unused)}"


def test_every_named_template_that_is_included_is_defined() -> None:
    text = "".join(path.read_text() for path in TEMPLATES)
    included = set(re.findall(r'include "([^"]+)"', text))
    assert included <= set(re.findall(r'define "([^"]+)"', text))


def test_the_schema_knows_every_value_and_nothing_else() -> None:
    def described(schema: dict[str, Any], before: str = "") -> Iterator[str]:
        for key, inner in schema.get("properties", {}).items():
            yield f"{before}{key}"
            yield from described(inner, f"{before}{key}.")

    open_ended = {name for name in paths(VALUES) if name.startswith(("resources.", "secret.values."))}
    assert set(paths(VALUES)) - open_ended == set(described(SCHEMA)) - {"nameOverride", "global"}


def test_the_configuration_the_chart_ships_is_right() -> None:
    env = {"REDIS_URL": "redis://r:6379", "DATABASE_URL": "postgresql://p/t", "TOLLGATE_ADMIN_KEY": "0123456789"}
    assert settings.parse(VALUES["config"], env).routes["auto"]


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed: the chart is not rendered here")
def test_the_chart_renders() -> None:
    done = subprocess.run(["helm", "template", "t", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kinds = {document["kind"] for document in yaml.safe_load_all(done.stdout) if document}
    assert {"Deployment", "Service", "ConfigMap", "Secret", "PodDisruptionBudget"} <= kinds


def test_the_image_runs_as_nobody_in_particular_and_carries_no_pip() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text.rpartition("FROM ")[2]
    assert re.search(r"^USER 10001", final, re.MULTILINE)
    assert "pip install" not in final
    assert "apt-get" not in final
    assert "HEALTHCHECK" in final
    for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.search(r":\d+\.\d+", image), f"{image} is not pinned"


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            name = source.removeprefix("./")
            assert (ROOT / name).exists(), name
            assert name in allowed, f".dockerignore keeps {name} out"


def test_compose_pins_its_images_and_mounts_what_is_there() -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert {"gateway-1", "gateway-2", "redis", "postgres", "prometheus", "grafana"} == set(services)
    for name, service in services.items():
        image = service["image"]
        assert image == "tollgate:local" or re.search(r":v?\d+\.", image) or re.search(r":\d+-", image), image
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).exists(), f"{name} mounts {source}"


def test_the_configuration_of_compose_is_right_with_keys_and_without() -> None:
    text = (ROOT / "config" / "compose.yaml").read_text()
    env = {"REDIS_URL": "redis://r:6379", "DATABASE_URL": "postgresql://p/t", "TOLLGATE_ADMIN_KEY": "0123456789"}
    assert set(settings.parse(text, env).deployments) == {"sim-small", "sim-large"}
    keys = {"OPENAI_API_KEY": "sk-test", "ANTHROPIC_API_KEY": "sk-test"}
    assert set(settings.parse(text, env | keys).deployments) == {"sim-small", "sim-large", "gpt-mini", "sonnet"}

"""Dockerfile, compose.yaml and the chart, as far as they can be held to something without their tools.

The chart rendered by helm is in tests/system/test_chart.py.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import settings
from gateway.document import SettingsError

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tollgate"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
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
    known = set(paths(VALUES))
    assert used <= known, f"not in values.yaml: {sorted(used - known)}"
    leaves = {name for name in known if not any(other.startswith(f"{name}.") for other in known)}
    unused = {name for name in leaves if not any(name == one or name.startswith(f"{one}.") for one in used)}
    assert not unused, f"no template uses {sorted(unused)}"


def test_every_named_template_that_is_included_is_defined() -> None:
    text = "".join(path.read_text() for path in TEMPLATES)
    included = set(re.findall(r'include "([^"]+)"', text))
    assert included <= set(re.findall(r'define "([^"]+)"', text))


def test_a_template_calls_only_what_helm_has_and_closes_what_it_opens() -> None:
    keywords = {
        "if",
        "else",
        "end",
        "with",
        "range",
        "define",
        "or",
        "and",
        "not",
        "include",
        "required",
        "fail",
        "dict",
    }
    functions = {"default", "contains", "trunc", "trimSuffix", "replace", "printf", "quote", "toYaml", "toJson", "base"}
    functions |= {"get", "nindent", "sha256sum"}
    for path in TEMPLATES:
        for action in actions(path):
            code = re.sub(r'"[^"]*"', '""', re.sub(r"/\*.*?\*/", "", action, flags=re.DOTALL))
            assert code.count('"') % 2 == 0, f"{path.name}: {action}"
            assert code.count("(") == code.count(")"), f"{path.name}: {action}"
            words = set(re.findall(r"(?<![\w.$])[a-zA-Z]\w*", code))
            assert words <= keywords | functions, f"{path.name}: {words - keywords - functions}"
            builtin = set(re.findall(r"(?<![\w$.])\.([A-Z]\w*)", code))
            assert builtin <= {"Values", "Chart", "Release", "Files"}, f"{path.name}: {builtin}"


def test_the_schema_knows_every_value_and_nothing_else() -> None:
    def described(schema: dict[str, Any], before: str = "") -> Iterator[str]:
        for key, inner in schema.get("properties", {}).items():
            yield f"{before}{key}"
            yield from described(inner, f"{before}{key}.")

    open_ended = {name for name in paths(VALUES) if re.match(r"(\w+\.)?resources\.|secret\.values\.", name)}
    assert set(paths(VALUES)) - open_ended == set(described(SCHEMA)) - {"global"}


def test_the_configuration_the_chart_ships_is_right() -> None:
    env = {"REDIS_URL": "redis://r:6379", "DATABASE_URL": "postgresql://p/t", "TOLLGATE_ADMIN_KEY": "0123456789"}
    assert settings.parse(VALUES["config"], env).routes["auto"]


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


def needed(name: str, extras: frozenset[str], seen: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Every distribution that an installation of this one brings, with the extras it is asked for with."""
    if extras <= seen.get(name, frozenset()) and name in seen:
        return seen
    seen[name] = seen.get(name, frozenset()) | extras
    for line in metadata.requires(name) or ():
        wanted = Requirement(line)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            needed(canonicalize_name(wanted.name), frozenset(wanted.extras), seen)
    return seen


def installed_bytes(name: str) -> int:
    """Of the distribution's own files, without what Python compiles and what the Dockerfile removes."""
    files = [file for file in metadata.files(name) or () if file.suffix != ".pyc"]
    kept = [file for file in files if "botocore/data/" not in file.as_posix()]
    paths = [Path(str(file.locate())) for file in kept]
    return sum(path.stat().st_size for path in paths if path.is_file())


# Not measured here: what is published of python:3.12.13-slim-bookworm, all layers on disk, of August 2026.
BASE_BYTES = 124_300_000
IMAGE_BYTES_MAX = 250_000_000


def test_the_base_and_what_is_installed_on_it_are_below_250_mb_and_without_numpy() -> None:
    text = (ROOT / "Dockerfile").read_text()
    extras = re.search(r"^ARG EXTRAS=(\S+)$", text, re.MULTILINE)
    assert extras
    assert text.rpartition("FROM ")[2].startswith("python:3.12-slim-bookworm\n")
    brought = needed("tollgate", frozenset(extras[1].split(",")), {})
    assert {"botocore", "azure-identity", "google-auth", "uvloop"} <= set(brought)
    assert "numpy" not in brought
    packages = sum(installed_bytes(name) for name in brought)
    ours = [path for room in ("gateway", "router_policies") for path in (ROOT / room).rglob("*") if path.is_file()]
    code = sum(path.stat().st_size for path in ours if path.suffix != ".pyc")
    largest = {name: installed_bytes(name) for name in sorted(brought, key=installed_bytes)[-8:]}
    assert BASE_BYTES + packages + code < IMAGE_BYTES_MAX, largest


def test_a_route_by_difficulty_without_numpy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    for module in [name for name in sys.modules if name.startswith("router_policies.difficulty.")]:
        if module != "router_policies.difficulty.policy":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("router_policies.difficulty.artifact", raising=False)
    text = """
providers: {s: {dialect: simulated}}
deployments: [{id: a, provider: s, upstream_model: sim, price: {input: 1, output: 1}}]
routes: {auto: {candidates: [a], policies: [cheapest, difficulty]}}
"""
    with pytest.raises(SettingsError, match=r"pip install 'tollgate\[difficulty\]'"):
        settings.parse(text, {})


def fits(value: Any, schema: dict[str, Any], place: str = "values") -> None:
    """As much of JSON Schema as the chart's schema uses."""
    known = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    kinds = schema.get("type", [])
    allowed = tuple(known[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
    assert not allowed or isinstance(value, allowed), f"{place} is no {kinds}"
    assert "enum" not in schema or value in schema["enum"], f"{place} is none of {schema['enum']}"
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        assert set(value) <= set(inner) or schema.get("additionalProperties") is not False, f"{place}: {set(value)}"
        for key, each in value.items():
            fits(each, inner.get(key, {}), f"{place}.{key}")
    if isinstance(value, int) and not isinstance(value, bool):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), place
    if isinstance(value, str):
        assert len(value) >= schema.get("minLength", 0), place


@pytest.mark.parametrize("path", [CHART / "values.yaml", *EXAMPLES], ids=lambda path: path.name)
def test_the_values_of_every_example_fit_the_schema(path: Path) -> None:
    fits(yaml.safe_load(path.read_text()), SCHEMA)


def test_the_schema_uses_only_words_that_are_checked_here() -> None:
    words = set(re.findall(r'"(\w+)":', json.dumps(SCHEMA)))
    assert not words & {"pattern", "oneOf", "anyOf", "allOf", "items", "required", "const", "if", "dependencies"}
    with pytest.raises(AssertionError, match="replicas"):
        fits({"replicas": "two"}, SCHEMA)
    with pytest.raises(AssertionError, match="replica"):
        fits({"replica": 2}, SCHEMA)


def test_the_examples_turn_on_everything_the_chart_can_turn_on() -> None:
    switches = {
        name for name in paths(VALUES) if name.endswith((".enabled", "serviceMonitor", "prometheusRule", "dashboards"))
    }
    on = {name for path in EXAMPLES for name in paths(yaml.safe_load(path.read_text()))}
    assert switches - {"migrations.enabled"} <= on

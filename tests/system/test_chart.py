"""The chart as helm renders it, for every example: valid, complete in itself, and what it starts serves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chart
import pytest
import yaml
from guides import ROOT, blocks
from processes import GatewayProcess, web

from gateway import settings

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        chart.helm() is None, reason="no helm: `make chart` fetches one, the templates' tests go without"
    ),
]

EXAMPLES = [chart.CHART / "values.yaml", *sorted((chart.CHART / "ci").glob("*-values.yaml"))]
CUSTOM = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}  # of operators: Kubernetes itself has no schema for them
OLDEST, NEWEST = "1.27", "1.37"

Manifests = list[dict[str, Any]]


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Path:
    """One after the other."""
    path: Path = request.param
    return path


def named(manifests: Manifests, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def pods(manifests: Manifests) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, metadata and spec of whatever runs."""
    for each in manifests:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["metadata"], each["spec"]
        elif "template" in each.get("spec", {}):
            template = each["spec"]["template"]
            yield each["metadata"]["name"], template["metadata"], template["spec"]


def chosen(manifests: Manifests, labels: dict[str, str]) -> set[str]:
    return {name for name, metadata, _ in pods(manifests) if labels.items() <= metadata.get("labels", {}).items()}


def container(manifests: Manifests, name: str) -> dict[str, Any]:
    spec = next(spec for found, _, spec in pods(manifests) if found == name)
    found: dict[str, Any] = spec["containers"][0]
    return found


@pytest.mark.skipif(chart.schemas() is None, reason="no schemas of Kubernetes: `make chart` fetches them")
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_manifest(example: Path, version: str) -> None:
    found = [each for each in chart.manifests(example) if each["kind"] not in CUSTOM]
    assert {"Deployment", "Service", "ConfigMap", "PodDisruptionBudget"} <= {each["kind"] for each in found}
    assert [mistake for each in found for mistake in chart.mistakes(each, version)] == []


@pytest.mark.skipif(chart.schemas() is None, reason="no schemas of Kubernetes: `make chart` fetches them")
def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"sessions": 1}}
    assert chart.mistakes(wrong, NEWEST) == [
        "Service $.spec: Additional properties are not allowed ('sessions' was unexpected)"
    ]


def test_what_a_manifest_refers_to_is_made_or_was_there_before(example: Path) -> None:
    manifests = chart.manifests(example)
    values = yaml.safe_load(example.read_text())
    secrets = set(named(manifests, "Secret")) | {values.get("secret", {}).get("existing")}
    accounts = set(named(manifests, "ServiceAccount")) | {"gateways"}
    for name, _, spec in pods(manifests):
        assert spec.get("serviceAccountName") in accounts | {None}, name
        declared = {volume["name"] for volume in spec.get("volumes", ())} | {
            claim["metadata"]["name"]
            for each in manifests
            if each["metadata"]["name"] == name
            for claim in each.get("spec", {}).get("volumeClaimTemplates", ())
        }
        for volume in spec.get("volumes", ()):
            assert volume.get("configMap", {}).get("name") in {*named(manifests, "ConfigMap"), None}, name
        for one in spec["containers"]:
            assert {mount["name"] for mount in one.get("volumeMounts", ())} <= declared, name
            assert {source["secretRef"]["name"] for source in one.get("envFrom", ())} <= secrets, name
            keys = [each["valueFrom"]["secretKeyRef"]["name"] for each in one.get("env", ()) if "valueFrom" in each]
            assert set(keys) <= secrets, name


def test_services_and_budgets_choose_the_gateways_and_nothing_else(example: Path) -> None:
    manifests = chart.manifests(example)
    (gateways,) = named(manifests, "Deployment")
    ports = {port["name"] for port in container(manifests, gateways)["ports"]}
    for name, service in named(manifests, "Service").items():
        assert chosen(manifests, service["spec"]["selector"]) == {name}
        behind = container(manifests, name)["ports"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {port["name"] for port in behind}
    for kind in ("PodDisruptionBudget", "Deployment"):
        for each in named(manifests, kind).values():
            assert chosen(manifests, each["spec"]["selector"]["matchLabels"]) == {gateways}
    for each in named(manifests, "HorizontalPodAutoscaler").values():
        assert each["spec"]["scaleTargetRef"]["name"] == gateways
        assert "replicas" not in named(manifests, "Deployment")[gateways]["spec"]
    for each in named(manifests, "ServiceMonitor").values():
        labels = each["spec"]["selector"]["matchLabels"].items()
        assert [
            name for name, one in named(manifests, "Service").items() if labels <= one["metadata"]["labels"].items()
        ] == [gateways]
        assert {endpoint["port"] for endpoint in each["spec"]["endpoints"]} <= ports
    for each in named(manifests, "HTTPRoute").values():
        assert [one["name"] for rule in each["spec"]["rules"] for one in rule["backendRefs"]] == [gateways]


def test_nothing_runs_as_root_writes_to_its_image_or_may_gain_rights(example: Path) -> None:
    for name, _, spec in pods(chart.manifests(example)):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["automountServiceAccountToken"] is False, name
        for one in spec["containers"]:
            rights = one["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True, name
            assert rights["allowPrivilegeEscalation"] is False, name
            assert rights["capabilities"] == {"drop": ["ALL"]}, name


def test_the_configuration_in_the_config_map_is_right(example: Path) -> None:
    manifests = chart.manifests(example)
    (gateways,) = named(manifests, "Deployment")
    env = {"REDIS_URL": "redis://r:6379", "DATABASE_URL": "postgresql://p/t", "TOLLGATE_ADMIN_KEY": "0123456789"}
    for secret in named(manifests, "Secret").values():
        env |= secret.get("stringData") or {}
    env |= {each["name"]: each["value"] for each in container(manifests, gateways).get("env", ()) if "value" in each}
    read = settings.parse(named(manifests, "ConfigMap")[gateways]["data"]["gateway.yaml"], env)
    assert read.routes["auto"]
    assert read.redis == env["REDIS_URL"]
    grace_s = named(manifests, "Deployment")[gateways]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > 5 + read.server.timeouts.announce_s + read.server.timeouts.drain_s


def test_rules_and_dashboards_arrive_as_they_are_tested() -> None:
    manifests = chart.manifests(chart.CHART / "ci" / "monitoring-values.yaml")
    (rules,) = named(manifests, "PrometheusRule").values()
    assert rules["spec"] == yaml.safe_load((ROOT / "config" / "prometheus" / "rules.yml").read_text())
    dashboards = named(manifests, "ConfigMap")["shop-tollgate-dashboards"]["data"]
    ours = {path.name: json.loads(path.read_text()) for path in (ROOT / "config" / "grafana").glob("*.json")}
    assert {name: json.loads(text) for name, text in dashboards.items()} == ours


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "replicas=two"], "replicas"),
        (["--set", "replica=2"], "replica"),
        (["--set", "ingress.enabled=true"], "ingress.host is needed"),
        (["--set", "postgres.bundled=true"], "postgres.bundled needs secret.values.POSTGRES_PASSWORD"),
        (["--kube-version", "1.26.0"], "kubeVersion"),
    ],
)
def test_wrong_values_are_refused_by_name(arguments: list[str], told: str) -> None:
    done = chart.template(*arguments)
    assert done.returncode != 0
    assert told in done.stderr


def test_names_stay_within_what_kubernetes_takes() -> None:
    manifests = [
        each for each in yaml.safe_load_all(chart.template("--set", f"nameOverride={'n' * 53}").stdout) if each
    ]
    assert max(len(each["metadata"]["name"]) for each in manifests) <= 63


def test_the_values_of_the_guide_render(tmp_path: Path) -> None:
    (guide,) = [
        block for block in blocks(ROOT / "docs" / "guides" / "run-on-kubernetes.md") if block.title == "values.yaml"
    ]
    (tmp_path / "values.yaml").write_text(guide.text)
    kinds = {each["kind"] for each in chart.manifests(tmp_path / "values.yaml")}
    assert {"HorizontalPodAutoscaler", "Ingress", "ServiceMonitor", "PrometheusRule"} <= kinds


@pytest.fixture(scope="module")
def release() -> Manifests:
    """With stores that somebody else runs."""
    return chart.manifests(chart.CHART / "ci" / "external-redis-postgres-values.yaml")


def test_the_hook_migrates_and_what_the_chart_starts_serves_its_probes_and_its_test(
    start: Any, release: Manifests, redis_url: str, postgres_schema_url: str
) -> None:
    env = dict(next(iter(named(release, "Secret").values()))["stringData"])
    env |= {"REDIS_URL": redis_url, "DATABASE_URL": postgres_schema_url}
    migrate = container(release, "shop-tollgate-migrations")["command"]
    subprocess.run([sys.executable, *migrate[1:]], env=env, cwd=ROOT, check=True)

    config = named(release, "ConfigMap")["shop-tollgate"]["data"]["gateway.yaml"]
    gateway: GatewayProcess = start(config.replace("/var/lib/tollgate", "{folder}"), env=env)
    pod = container(release, "shop-tollgate")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert web.get(gateway.url + pod[probe]["httpGet"]["path"]).status_code == 200
    asks = container(release, "shop-tollgate-test")["command"]
    here = [each.replace("http://shop-tollgate:80", gateway.url) for each in asks[1:]]
    assert here != asks[1:]
    subprocess.run([sys.executable, *here], check=True)


def test_the_command_of_the_pods_is_one_that_tollgate_knows(release: Manifests) -> None:
    from typer.main import get_command  # noqa: PLC0415 - only here

    from gateway.cli import app  # noqa: PLC0415

    command = get_command(app)
    name, *arguments = container(release, "shop-tollgate")["args"]
    serve = command.commands[name]  # type: ignore[attr-defined]
    parameters = serve.make_context(name, [*arguments], resilient_parsing=True).params
    assert parameters["workers"] == 2
    assert str(parameters["config"]) == "/etc/tollgate/gateway.yaml"

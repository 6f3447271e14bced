"""Real Prometheus, a real gateway, simulated traffic: every panel and every rule answers what the records say.

A week is told in a second: the gateway's own /metrics, taken between two batches of traffic, is written into Prometheus
at the moments that the longest ranges ask for.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from harness import KEY, Running, gateway
from processes import GatewayProcess
from processes import Running as Process
from prometheus_client.parser import text_string_to_metric_families
from services import free_port

from gateway.types import INPUT_BUCKETS, NANO, Outcome, Record

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
Start = Callable[..., GatewayProcess]
RULES = ROOT / "config" / "prometheus" / "rules.yml"
RECORDING = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "record" in rule
]
EXPRESSIONS = {rule["record"]: rule["expr"] for rule in RECORDING}
HOUR, DAY = 3600, 86400
RANGE, RATE = HOUR, 600  # what $__range and $__rate_interval stand for here
VARIABLES = {"$__range": "1h", "$__rate_interval": "10m", '=~"$tenant"': '=~".*"', '="$tenant"': '="acme"'}
VARIABLES |= {'=~"$deployment"': '=~".*"', '=~"$route"': '=~".*"'}

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  simulated: {{dialect: simulated, retries_max: 0}}
  flaky: {{dialect: simulated, retries_max: 1}}
deployments:
  - {{id: small, provider: simulated, upstream_model: "sim-small?first_token_ms=5", price: {{input: 1, output: 1}},
      output_max: 16384}}
  - {{id: large, provider: simulated, upstream_model: "sim-large?cached=0.5&reasoning=40&output=60&first_token_ms=5",
      price: {{input: 10, output: 30, cache_read: 1}}, output_max: 32000}}
  - {{id: shaky, provider: flaky, upstream_model: "sim-small?status=503", price: {{input: 0.5, output: 0.5}}}}
  - {{id: mute, provider: simulated, upstream_model: "sim-small?no_usage=1", price: {{input: 1, output: 1}}}}
  - {{id: unpriced, provider: simulated, upstream_model: sim-unheard-of, price: {{unknown: true}}}}
routes:
  auto: {{candidates: [large, small], baseline: large, policies: [{{output_cap: {{default: 256}}}}, cheapest]}}
  hard: {{candidates: [shaky, large], baseline: large, policies: [{{output_cap: {{default: 256}}}}]}}
tenants:
  - id: acme
    models: [auto, hard, large, small, shaky, no-such-model]
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: 100, window: total}}]
  - {{id: globex, keys: [{{name: prod, key: test-key-of-globex}}]}}
  - id: poor
    models: [small]
    keys: [{{name: prod, key: test-key-of-poor}}]
    budgets: [{{limit_usd: 0.000001, window: total}}]
"""

BATCH = (  # key, model, times, status
    (KEY, "auto", 3, 200),
    (KEY, "large", 2, 200),
    (KEY, "hard", 1, 200),
    ("test-key-of-globex", "small", 2, 200),
    ("test-key-of-globex", "mute", 1, 200),
    ("test-key-of-globex", "unpriced", 1, 200),
    (KEY, "no-such-model", 1, 404),
    ("test-key-of-poor", "small", 2, 429),
)


async def traffic(running: Running) -> list[Record]:
    """One batch through the gateway, and its records."""
    before = len(running.records)
    for key, model, times, status in BATCH:
        for number in range(times):
            body = {
                "model": model,
                "messages": [{"role": "user", "content": f"What is {number}? " * 20}],
                "max_tokens": 200,
            }
            reply = await running.client.post(
                "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
            )
            assert reply.status_code == status, reply.text
    metrics = running.gateway.parts.metrics  # what the pipeline has no part for yet
    metrics.decided("auto", "cheapest", "small")
    metrics.escalated("auto", "judge")
    metrics.looked_up("exact", "hit")
    metrics.looked_up("exact", "miss")
    metrics.degraded("acme", "tenant acme", "day")
    metrics.failed("quarantined")
    metrics.written(10)
    return running.records[before:]


async def scraped(running: Running) -> list[tuple[str, float]]:
    """Every sample of /metrics, as `name{labels}` and value, as one instance would show them."""
    found = []
    for family in text_string_to_metric_families((await running.client.get("/metrics")).text):
        for sample in family.samples:
            labels = {**sample.labels, "instance": "gateway:8080"}
            pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
            found.append((f"{sample.name}{{{pairs}}}", sample.value))
    return found


@dataclass
class World:
    """What Prometheus was told, and the records it was told of."""

    url: str
    at: int
    week: list[Record]  # between eight days ago and one day ago
    now: list[Record]  # in the last ten minutes
    every: list[Record]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The answer at that moment; what rules record is worked out there and then."""
        query = re.sub(r"([a-z0-9_]*:?tollgate_[a-z_]+:[a-z0-9_]+)(\{[^}]*\})?", _inlined, expr)
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query, "time": self.at}).json()
        assert answer["status"] == "success", (expr, answer)
        found = answer["data"]["result"]
        return [{"metric": {}, "value": found}] if answer["data"]["resultType"] == "scalar" else found


def _inlined(recorded: re.Match[str]) -> str:
    one = '"acme"' in (recorded[2] or "")
    rule = EXPRESSIONS[recorded[1]]
    return f"({re.sub(r'(tollgate_[a-z_]+)(?:{([^}]*)})?', _of_acme, rule) if one else rule})"


def _of_acme(selector: re.Match[str]) -> str:
    return f'{selector[1]}{{tenant="acme", {selector[2] or ""}}}'


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Prometheus:
    """A real one over a folder of data."""

    def __init__(self, folder: Path, targets: Iterable[str] = ()) -> None:
        if shutil.which("prometheus") is None or shutil.which("promtool") is None:
            pytest.skip("prometheus is not installed (Debian: apt-get install prometheus): dashboards are not tested")
        self.data = folder / "data"
        self.url = f"http://127.0.0.1:{free_port()}"
        jobs = [{"job_name": "tollgate", "static_configs": [{"targets": list(targets)}]}]
        settings = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
            "rule_files": [str(folder / "rules.yml")] if targets else [],
            "scrape_configs": jobs if targets else [],
        }
        rules = re.sub(r"interval: \w+", "interval: 250ms", RULES.read_text())
        (folder / "rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={self.data}"]
        command += [f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=error"]
        self.process = Process(command, folder, folder / "prometheus.log")

    def start(self) -> None:
        self.process.start()
        self.process.wait_for(f"{self.url}/-/ready")

    def stop(self) -> None:
        self.process.kill()


async def three_batches(folder: Path) -> tuple[list[list[tuple[str, float]]], list[list[Record]]]:
    """What /metrics said after each batch of traffic, and the records of each."""
    said, records = [], []
    async with gateway(CONFIG.format(folder=folder)) as running:
        for _ in range(3):
            records.append(await traffic(running))
            said.append(await scraped(running))
    return said, records


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("prometheus")
    prometheus = Prometheus(folder)
    at = int(time.time()) // 60 * 60 - HOUR
    (first, second, third), batches = asyncio.run(three_batches(tmp_path_factory.mktemp("gateway")))
    moments = [(at - 8 * DAY, first), *((at - ago, second) for ago in (DAY, HOUR, RATE, 300)), (at, third)]
    lines = [f"{series} {value} {moment}" for moment, samples in moments for series, value in samples]
    (folder / "history.txt").write_text("\n".join([*sorted(lines), "# EOF\n"]))
    promtool("tsdb", "create-blocks-from", "openmetrics", folder / "history.txt", prometheus.data)
    try:
        prometheus.start()
        yield World(prometheus.url, at, batches[1], batches[2], [record for batch in batches for record in batch])
    finally:
        prometheus.stop()


# What the records say.


def usd(records: Iterable[Record], of: Callable[[Record], str] = lambda _: "") -> dict[str, float]:
    found: dict[str, int] = defaultdict(int)
    for record in records:
        if record.cost is not None:
            found[of(record)] += record.cost
    return {name: nano / NANO for name, nano in found.items()}


def tally(records: Iterable[Record], of: Callable[[Record], str] = lambda _: "") -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for record in records:
        found[of(record)] += 1
    return dict(found)


def tokens(records: Iterable[Record], kinds: Iterable[str] | None = None) -> float:
    wanted = None if kinds is None else set(kinds)
    return sum(n for record in records for kind, n in record.tokens.items() if wanted is None or kind in wanted)


def component(records: Iterable[Record], name: str) -> float:
    return sum(record.components.get(name, 0) for record in records) / NANO


def per(figures: dict[str, float], seconds: float) -> dict[str, float]:
    return {name: value / seconds for name, value in figures.items()}


def of_tenant(records: Iterable[Record], tenant: str = "acme") -> list[Record]:
    return [record for record in records if record.tenant == tenant]


def compared(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.baseline_cost is not None and record.cost is not None]


def baseline(records: Iterable[Record]) -> float:
    return sum(record.baseline_cost or 0 for record in compared(records)) / NANO


def failed(records: Iterable[Record]) -> list[Record]:
    return [each for each in records if each.outcome in (Outcome.UPSTREAM_ERROR, Outcome.BROKEN_STREAM)]


def tenant_of(record: Record) -> str:
    return record.tenant


def deployment_of(record: Record) -> str:
    return record.deployment


def cached_share(records: list[Record]) -> float:
    return tokens(records, ["cache_read"]) / tokens(records, INPUT_BUCKETS)


def caching_saved(records: list[Record]) -> float:
    saved = 0.0
    for pair in {(record.tenant, record.deployment) for record in records}:
        some = [record for record in records if (record.tenant, record.deployment) == pair]
        if tokens(some, ["cache_read"]):
            rate = component(some, "input") / tokens(some, ["input"])
            saved += tokens(some, ["cache_read"]) * rate - component(some, "cache_read")
    return saved


def by_kind(records: Iterable[Record]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for record in records:
        for kind, count in record.tokens.items():
            found[str(kind)] += count
    return dict(found)


def by_component(records: Iterable[Record]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for record in records:
        for name, nano in record.components.items():
            found[str(name)] += nano / NANO
    return dict(found)


def left(world: World, tenant: str, limit: float) -> float:
    return 1 - usd(of_tenant(world.every, tenant)).get("", 0.0) / limit


HOURLY = RATE / HOUR
REFUSED = 3  # of the batch: one model that is not there, two budgets that are full

EXPECTED: dict[str, Callable[[World], dict[str, float]]] = {
    "spend: Spent": lambda w: usd(w.now),
    "spend: A day against the mean": lambda w: {"": usd(w.now)[""] / (usd(w.week)[""] / 7)},
    "spend: Saved against the baseline": lambda w: {"": baseline(w.now) - usd(compared(w.now))[""]},
    "spend: Cost per request": lambda w: {"": usd(w.now)[""] / len(w.now)},
    "spend: Cost per 1,000 output tokens": lambda w: {
        "": 1000 * usd(w.now)[""] / tokens(w.now, ["output", "reasoning"])
    },
    "spend: Reasoning": lambda w: {"": component(w.now, "reasoning") / usd(w.now)[""]},
    "spend: By tenant": lambda w: per(usd(w.now, tenant_of), HOURLY),
    "spend: By deployment": lambda w: per(usd(w.now, deployment_of), HOURLY),
    "spend: By provider": lambda w: per(usd(w.now, lambda each: each.provider), HOURLY),
    "spend: By component": lambda w: per(by_component(w.now), HOURLY),
    "spend: Left of each budget": lambda w: {"acme tenant total": left(w, "acme", 100), "poor tenant total": 1},
    "spend: Days left": lambda w: {
        "acme total": (100 - usd(of_tenant(w.every))[""]) / usd(of_tenant(w.now))[""],
    },
    "spend: Burn-down": lambda w: {"acme tenant total": 100 - usd(of_tenant(w.every))[""], "poor tenant total": 1e-6},
    "spend: Cached input": lambda w: {"acme large": cached_share([r for r in w.now if r.deployment == "large"])},
    "spend: Cached share": lambda w: {"": cached_share(w.now)},
    "spend: Caching saved": lambda w: {"": caching_saved(w.now)},
    "spend: Lost to overhead": lambda w: {"": sum(record.overhead_cost for record in w.now) / NANO},
    "spend: Paid and baseline": lambda w: per({"baseline": baseline(w.now), "paid": usd(compared(w.now))[""]}, HOURLY),
    "routing: Who serves": lambda w: per(tally(w.now, lambda each: f"{each.route}: {each.deployment}"), RATE),
    "routing: What policies decide": lambda _: {"cheapest: small": 1 / RATE},
    "routing: Escalated": lambda w: {"": 1 / len(w.now)},
    "routing: Overhead": lambda w: {
        "": sum(record.overhead_cost for record in w.now) / NANO / usd(compared(w.now))[""]
    },
    "routing: Reply cache hits": lambda _: {"": 0.5},
    "routing: Escalations": lambda _: {"auto: judge": 1 / RATE},
    "routing: Paid over baseline": lambda w: {
        route: usd(some)[""] / baseline(some)
        for route in ("auto", "hard")
        if (some := [each for each in compared(w.now) if each.route == route])
    },
    "routing: Made cheaper or refused by a budget": lambda _: {
        "degraded acme tenant": 1 / RATE,
        "denied poor tenant": 2 / RATE,
    },
    "reliability: Failed": lambda w: {"": len(failed(w.now)) / len(w.now)},
    "reliability: Circuits open": lambda w: {
        "": w.ask("sum(tollgate_circuit_open)")[0] and float(w.ask("sum(tollgate_circuit_open)")[0]["value"][1])
    },
    "reliability: In flight": lambda _: {"": 0},
    "reliability: Ledger": lambda _: {"": 1},
    "reliability: Records pending": lambda w: {"": float(w.ask("tollgate_records_pending")[0]["value"][1])},
    "reliability: Records astray": lambda _: {"": 1},
    "reliability: By outcome": lambda w: per(
        {**tally(w.now, lambda each: str(each.outcome)), "refused": REFUSED}, RATE
    ),
    "reliability: Waiting for the database": lambda w: {
        "gateway:8080": float(w.ask("tollgate_records_pending")[0]["value"][1])
    },
    "reliability: Estimated and unknown": lambda w: {
        **{f"usage missing {name}": n for name, n in tally((r for r in w.now if r.estimated), deployment_of).items()},
        **{
            f"price unknown {name}": n for name, n in tally((r for r in w.now if r.cost is None), deployment_of).items()
        },
    },
    "tenant: Spent": lambda w: usd(of_tenant(w.now)),
    "tenant: In the last 24 hours": lambda w: {"": usd(of_tenant(w.now))[""]},
    "tenant: Fullest budget": lambda w: {"": 1 - left(w, "acme", 100)},
    "tenant: Requests": lambda w: {"": len(of_tenant(w.now))},
    "tenant: Refused": lambda _: {"": 1},
    "tenant: Saved against the baseline": lambda w: {
        "": baseline(of_tenant(w.now)) - usd(compared(of_tenant(w.now)))[""]
    },
    "tenant: Spend by deployment": lambda w: per(usd(of_tenant(w.now), deployment_of), HOURLY),
    "tenant: Tokens by kind": lambda w: per(by_kind(of_tenant(w.now)), RATE),
    "tenant: Requests by outcome": lambda w: per(
        {**tally(of_tenant(w.now), lambda each: str(each.outcome)), "refused": 1}, RATE
    ),
    "tenant: Requests by endpoint": lambda w: {"chat": (len(of_tenant(w.now)) + 1) / RATE},
    "tenant: Left of each budget": lambda w: {"tenant total": left(w, "acme", 100)},
    "tenant: Refused by a budget": lambda _: {},
}
WITHIN = {  # of what no record holds to the microsecond: bounds
    "routing: Token estimate over truth": (0.2, 4.1),
    "reliability: Whole request": (0.0, 10.0),
    "reliability: First token": (0.0, 10.0),
    "reliability: Waiting for the provider": (0.0, 10.0),
    "reliability: Added by the gateway": (0.0, 10.0),
    "reliability: Failed by deployment": (0.0, 1.0),
    "reliability: Given up for the next candidate": (0.0, 1.0),
    "reliability: Asked again": (0.0, 1.0),
    "reliability: Records written": (0.0, 100.0),
    "reliability: Charged above the bound": (0.0, 0.0),
}
PANELS = [
    pytest.param(path.stem, panel, id=f"{path.stem}: {panel['title']}")
    for path in sorted((ROOT / "config" / "grafana").glob("*.json"))
    for panel in json.loads(path.read_text())["panels"]
    if panel["type"] != "row"
]


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_a_panel_shows_what_the_records_say(world: World, dashboard: str, panel: dict[str, Any]) -> None:
    shown: dict[str, float] = {}
    for target in panel["targets"]:
        expr = target["expr"]
        for variable, value in VARIABLES.items():
            expr = expr.replace(variable, value)
        assert "$" not in expr
        for sample in world.ask(expr):
            shown[legend(target["legendFormat"], sample["metric"])] = float(sample["value"][1])
    name = f"{dashboard}: {panel['title']}"
    if name in WITHIN:
        low, high = WITHIN[name]
        known = [value for value in shown.values() if value == value]  # an empty histogram is no number
        assert known or high == 0 or "Failed by" in name
        assert all(low <= value <= high for value in known)
        return
    moved = {label: value for label, value in shown.items() if value or label in EXPECTED[name](world)}
    assert moved == pytest.approx(EXPECTED[name](world), rel=1e-6, abs=1e-15)


RECORDED: dict[str, Callable[[World], dict[str, float]]] = {
    "tenant:tollgate_cost_usd_total:increase1h": lambda w: usd(w.now, tenant_of),
    "tenant:tollgate_cost_usd_total:increase1d": lambda w: usd(w.now, tenant_of),
    "tenant:tollgate_cost_usd_total:daily_mean7d": lambda w: per(usd(w.week, tenant_of), 7),
    "account:tollgate_budget_spent_usd:ratio": lambda w: {"acme": 1 - left(w, "acme", 100)},
    "tenant_deployment:tollgate_cost_usd_total:share1h": lambda w: shares(w.now),
    "tenant_deployment:tollgate_cost_usd_total:share1d": lambda w: shares(w.now),
    "tenant_deployment:tollgate_tokens_total:cached_share1h": lambda w: cached_shares(w.now),
    "tenant_deployment:tollgate_tokens_total:cached_share1d": lambda w: cached_shares(w.now),
    **{
        f"tollgate_requests_total:error_ratio{span}": lambda w: {"": len(failed(w.now)) / len(w.now)}
        for span in ("5m", "30m", "1h", "6h")
    },
    "deployment:tollgate_retries_total:ratio10m": lambda _: {},
    "deployment:tollgate_usage_missing_total:ratio1h": lambda w: {
        name: sum(r.estimated for r in w.now if r.deployment == name) / count
        for name, count in tally(w.now, deployment_of).items()
    },
}


def shares(records: list[Record]) -> dict[str, float]:
    whole = usd(records, tenant_of)
    pairs = usd(records, lambda each: f"{each.tenant} {each.deployment}")
    return {pair: cost / whole[pair.split()[0]] for pair, cost in pairs.items()}


def cached_shares(records: list[Record]) -> dict[str, float]:
    pairs = {(record.tenant, record.deployment) for record in records if record.tokens.get("cache_read")}
    return {
        f"{tenant} {deployment}": cached_share([r for r in records if (r.tenant, r.deployment) == (tenant, deployment)])
        for tenant, deployment in pairs
    }


def test_every_recording_rule_has_its_truth() -> None:
    assert set(EXPRESSIONS) == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_series_says_what_the_records_say(world: World, name: str) -> None:
    shown = {
        " ".join(sample["metric"][label] for label in ("tenant", "deployment") if label in sample["metric"]): float(
            sample["value"][1]
        )
        for sample in world.ask(name)
    }
    expected = RECORDED[name](world)
    assert {each: value for each, value in shown.items() if value} == pytest.approx(
        {each: value for each, value in expected.items() if value}, rel=1e-6
    )


@pytest.fixture(scope="module")
def live(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, Prometheus]]:
    """A gateway in a process of its own that answered some requests, and a Prometheus that scrapes it."""
    server = start(CONFIG.format(folder="{folder}"))
    prometheus = Prometheus(tmp_path_factory.mktemp("live"), [server.url.removeprefix("http://")])
    for key, model, times, status in BATCH:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
        for _ in range(times):
            reply = httpx.post(
                f"{server.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
            )
            assert reply.status_code == status, reply.text
    try:
        prometheus.start()
        yield server, prometheus
    finally:
        prometheus.stop()


def within(seconds: float, ask: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    ends = time.monotonic() + seconds
    while not wanted(found := ask()):
        assert time.monotonic() < ends, f"not within {seconds} s: {found}"
        time.sleep(0.1)
    return found


def test_prometheus_scrapes_what_the_records_in_the_database_sum_to(live: tuple[GatewayProcess, Prometheus]) -> None:
    server, prometheus = live
    told = within(
        20,
        lambda: json.loads(server.cli("spend", "--by", "tenant", "--json")),
        lambda each: sum(t["requests"] for t in each) == 10,
    )
    query = {"query": "sum by (tenant) (tollgate_cost_usd_total)"}
    found = within(20, lambda: httpx.get(f"{prometheus.url}/api/v1/query", params=query).json()["data"]["result"], bool)
    shown = {sample["metric"]["tenant"]: round(float(sample["value"][1]) * NANO) for sample in found}
    assert shown == {each["tenant"]: round(float(each["cost_usd"]) * NANO) for each in told}


def test_prometheus_can_evaluate_every_rule_of_a_live_gateway(live: tuple[GatewayProcess, Prometheus]) -> None:
    _, prometheus = live

    def states() -> dict[str, str]:
        groups = httpx.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    found = within(20, states, lambda each: each and "unknown" not in each.values())
    assert set(found.values()) == {"ok"}
    assert set(EXPRESSIONS) < set(found)

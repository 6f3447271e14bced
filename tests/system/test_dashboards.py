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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import KEY, Running, gateway
from msgspec import structs
from processes import GatewayProcess, Running as Process, web
from prometheus_client.parser import text_string_to_metric_families
from services import free_port
from sqlalchemy import func, select

from gateway.metrics import HISTOGRAMS
from gateway.sql.cache_breaks import breaks
from gateway.sql.schema import alerts, outcomes
from gateway.sql.trends import WATCH
from gateway.types import INPUT_BUCKETS, NANO, Outcome, Record

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
Start = Callable[..., GatewayProcess]
RULES = ROOT / "config" / "prometheus" / "rules.yml"
RECORDING = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "record" in rule
]
EXPRESSIONS = {rule["record"]: rule["expr"] for rule in RECORDING}
ALERTS = select(alerts.c.kind, func.count()).where(alerts.c.kind != WATCH).group_by(alerts.c.kind)
DRIFTS = select(outcomes.c.source, outcomes.c.score).where(outcomes.c.source.startswith("shadow:"))
HOUR, DAY = 3600, 86400
RANGE, RATE = HOUR, 600  # what $__range and $__rate_interval stand for here
VARIABLES = {"$__range": "1h", "$__rate_interval": "10m", '=~"$tenant"': '=~".*"', '="$tenant"': '="acme"'}
VARIABLES |= {'=~"$deployment"': '=~".*"', '=~"$route"': '=~".*"'}

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
alerts: {{every_s: 0.05, budget_shares: [1, 2, 3]}}  # each batch fills the watched one's budget once more
providers:
  simulated: {{dialect: simulated, retries_max: 0}}
  flaky: {{dialect: simulated, retries_max: 1}}
  keyed:
    dialect: simulated
    retries_max: 0
    keys: [{{name: first, key: sk-first}}, {{name: second, key: sk-second}}]
deployments:
  - {{id: small, provider: simulated, upstream_model: "sim-small?first_token_ms=5", output_max: 16384,
      price: {{input: 1, output: 1, variants: {{batch: {{multiplier: 0.5}}}}}}}}
  - {{id: large, provider: simulated, upstream_model: "sim-large?cached=0.5&reasoning=40&output=60&first_token_ms=5",
      price: {{input: 10, output: 30, cache_read: 1}}, output_max: 32000}}
  - {{id: shaky, provider: flaky, upstream_model: "sim-small?first_token_ms=5", price: {{input: 1, output: 1}}}}
  - {{id: down, provider: simulated, upstream_model: "sim-down?status=503", price: {{input: 0.5, output: 0.5}}}}
  - {{id: shy, provider: keyed, upstream_model: "sim-shy?refusal=1&first_token_ms=5", price: {{input: 1, output: 1}},
      output_max: 4096}}
  - {{id: forgetful, provider: simulated, upstream_model: "sim-forgetful?first_token_ms=5", output_max: 4096,
      price: {{input: 10, output: 1, cache_read: 1}}}}
  - {{id: mute, provider: simulated, upstream_model: "sim-small?no_usage=1", price: {{input: 1, output: 1}}}}
  - {{id: unpriced, provider: simulated, upstream_model: sim-unheard-of, price: {{unknown: true}}}}
routes:
  auto: {{candidates: [large, small], baseline: large, policies: [{{output_cap: {{default: 256}}}}, cheapest]}}
  hard: {{candidates: [down, large], baseline: large, policies: [{{output_cap: {{default: 256}}}}]}}
  judged: {{candidates: [shy, large], baseline: large, policies: [{{output_cap: {{default: 256}}}}, cheapest, cascade]}}
  doubled: {{candidates: [small, large], policies: [{{output_cap: {{default: 256}}}}, cheapest,
      {{shadow: {{by: large, share: 1}}}}]}}
  long: {{candidates: [forgetful]}}
tenants:
  - id: acme
    models: [auto, hard, judged, doubled, long, large, small, shaky, no-such-model]
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: 100, window: total}}, {{account: user, limit_usd: 0.000001, window: total}}]
  - {{id: globex, keys: [{{name: prod, key: test-key-of-globex}}]}}
  - id: poor
    models: [small]
    keys: [{{name: prod, key: test-key-of-poor}}]
    budgets: [{{limit_usd: 0.000001, window: total}}]
  - id: thrifty
    models: [small]
    keys: [{{name: prod, key: test-key-of-thrifty}}]
    budgets: [{{limit_usd: 0.000001, window: total, action: degrade}}]
  - id: watched
    models: [small]
    keys: [{{name: prod, key: test-key-of-watched}}]
    budgets: [{{limit_usd: 0.000018, window: total, action: alert}}]
"""
LIMITS = {  # window by window, in dollars; a shadow has one of its own
    "acme tenant total": 100.0,
    "poor tenant total": 1e-6,
    "thrifty tenant total": 1e-6,
    "watched tenant total": 18e-6,
    "shadow:doubled tenant day": 1.0,
}

BATCH = (  # key, model, times, status
    (KEY, "auto", 3, 200),
    (KEY, "large", 2, 200),
    (KEY, "hard", 1, 200),
    (KEY, "shaky", 10, 200),
    (KEY, "judged", 2, 200),
    (KEY, "doubled", 1, 200),
    ("test-key-of-globex", "small", 2, 200),
    ("test-key-of-globex", "mute", 1, 200),
    ("test-key-of-globex", "unpriced", 1, 200),
    (KEY, "no-such-model", 1, 404),
    ("test-key-of-poor", "small", 2, 429),
    ("test-key-of-thrifty", "small", 1, 200),
)
RULES_OF_CONDUCT = " ".join(
    f"Rule {number} says what is done in case {number} of such a kind." for number in range(300)
)


@dataclass
class Batch:
    """What happened between two looks at /metrics, as records, database and the test itself have it."""

    records: list[Record] = field(default_factory=list)
    times: list[tuple[str, float, float]] = field(default_factory=list)  # deployment; seconds added, and upstream
    breaks: dict[str, tuple[int, int]] = field(default_factory=dict)  # cause: requests, nano-dollars; since the start
    alerts: dict[str, float] = field(default_factory=dict)  # kind: how many were told; since the start
    drift: dict[str, list[float]] = field(default_factory=dict)  # source: how much answers agree; since the start


async def traffic(running: Running, found: Batch, number: int) -> None:
    """One batch through the gateway, and what became of it."""
    for key, model, times, status in BATCH:
        for turn in range(times):
            await ask(running, key, model, f"What is {turn}? " * 20, status)
    await ask(running, "test-key-of-watched", "small", "Am I seen?", 200, output=10)
    for clock in ("10:03:22", "10:04:57"):  # nothing of the rules is read from the cache
        await ask(running, KEY, "long", f"Now it is 2026-11-{number + 10}T{clock}Z.\n{RULES_OF_CONDUCT}", 200, "system")
    await ask(running, KEY, "small", "Am I too dear?", 429, user="bob")
    await ask(running, KEY, "shaky", "Are you well?", 503, sim="status=503")
    await a_batch_job(running, number)
    recorder = running.gateway.parts.recorder
    recorder.spool(structs.replace(found.records[0], id=f"poison-{number}", cost=2**70))
    await settled(running, found, number)


def watch(running: Running, batches: list[Batch]) -> None:
    """What is observed from now on is in the last batch."""
    metrics = running.gateway.parts.metrics
    observe = metrics.observe

    def seen(record: Record, overhead_s: float | None = None, upstream_s: float | None = None) -> None:
        batches[-1].records.append(record)
        if overhead_s is not None and upstream_s is not None:
            batches[-1].times.append((record.deployment, overhead_s, upstream_s))
        observe(record, overhead_s, upstream_s)

    metrics.observe = seen  # type: ignore[method-assign]


async def ask(
    running: Running,
    key: str,
    model: str,
    text: str,
    status: int,
    role: str = "user",
    user: str = "",
    sim: str = "",
    output: int = 200,
) -> None:
    turns = [{"role": role, "content": text}] + [{"role": "user", "content": "Well?"}] * (role == "system")
    body = {"model": model, "messages": turns, "max_tokens": output, "metadata": {"sim": sim}}
    headers = {"authorization": f"Bearer {key}"} | ({"x-tollgate-user": user} if user else {})
    reply = await running.client.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == status, (model, reply.text)


async def a_batch_job(running: Running, number: int) -> None:
    """One line, answered; returns when the metrics know, too."""
    client = running.openai(max_retries=0)
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
    }
    file = await client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    async with asyncio.timeout(30):
        while batch.status not in ("completed", "failed"):
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed", batch
        ended = 0.0
        while ended <= number:
            ended = sum(value for name, value in await scraped(running) if name.startswith("tollgate_batches_total"))


async def settled(running: Running, found: Batch, number: int) -> None:
    """Returns when shadows have answered, alerts are told and every record is written."""
    parts, database = running.gateway.parts, running.gateway.store.database
    await parts.doctor.flush(database)
    async with asyncio.timeout(30):
        while True:
            while await parts.recorder.round():
                continue
            told = await database.run(lambda each: {kind: count for kind, count in each.execute(ALERTS)})  # noqa: C416  # rows
            drifts = await database.run(lambda each: [(source, score) for source, score in each.execute(DRIFTS)])
            shadows = sum(1 for record in found.records if record.shadow_of)
            if shadows == 1 and len(drifts) == number + 1 and sum(told.values()) >= number + 2:
                break
            await asyncio.sleep(0.02)
        while parts.recorder.pending():
            await parts.recorder.round()
    found.alerts = {kind: float(count) for kind, count in told.items()}
    for source, score in drifts:
        found.drift.setdefault(source, []).append(score)
    for each in await database.run(lambda connection: breaks(connection, 0, time.time() + HOUR, {})):
        requests, cost = found.breaks.get(each.cause, (0, 0))
        found.breaks[each.cause] = (requests + each.requests, cost + each.cost)


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
    before: Batch  # between eight days ago and one day ago
    last: Batch  # in the last ten minutes
    every: list[Record]

    @property
    def week(self) -> list[Record]:
        return self.before.records

    @property
    def now(self) -> list[Record]:
        return self.last.records

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The answer at that moment; what rules record is worked out there and then."""
        query = re.sub(r"([a-z0-9_]*:?tollgate_[a-z_]+:[a-z0-9_]+)(\{[^}]*\})?", _inlined, expr)
        answer = web.get(f"{self.url}/api/v1/query", params={"query": query, "time": self.at}).json()
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


async def three_batches(folder: Path) -> tuple[list[list[tuple[str, float]]], list[Batch]]:
    """What /metrics said after each batch of traffic, and what each was."""
    said, batches = [], list[Batch]()
    async with gateway(CONFIG.format(folder=folder)) as running:
        watch(running, batches)
        for number in range(3):
            batches.append(Batch())
            await traffic(running, batches[-1], number)
            said.append(await scraped(running))
    return said, batches


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("prometheus")
    prometheus = Prometheus(folder)
    at = int(time.time()) // 60 * 60 - HOUR
    (first, second, third), batches = asyncio.run(three_batches(tmp_path_factory.mktemp("gateway")))
    moments = [(at - 8 * DAY, first), *((at - ago, second) for ago in (DAY, HOUR, RATE, 300)), (at, third)]
    told = sorted((series, moment, value) for moment, samples in moments for series, value in samples)
    lines = [f"{series} {value} {moment}" for series, moment, value in told]
    (folder / "history.txt").write_text("\n".join([*lines, "# EOF\n"]))
    promtool("tsdb", "create-blocks-from", "openmetrics", folder / "history.txt", prometheus.data)
    try:
        prometheus.start()
        yield World(
            prometheus.url, at, batches[1], batches[2], [record for batch in batches for record in batch.records]
        )
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


def spent(world: World, tenant: str) -> float:
    return usd(of_tenant(world.every, tenant)).get("", 0.0)


def left(world: World, tenant: str, limit: float) -> float:
    return 1 - spent(world, tenant) / limit


def quantiles(shares: Iterable[float], metric: str, values: dict[str, list[float]]) -> dict[str, float]:
    """As Prometheus works them out of a histogram's buckets, by legend."""
    bounds, found = HISTOGRAMS[metric][0], {}
    for share in shares:
        for name, each in values.items():
            below = [sum(value <= bound for value in each) for bound in bounds]
            rank = share * len(each)
            index = next((index for index, count in enumerate(below) if count >= rank), None)
            if index is None:
                found[f"p{share * 100:.0f} {name}"] = bounds[-1]
                continue
            low, under = (bounds[index - 1], below[index - 1]) if index else (0.0, 0)
            width = (bounds[index] - low) * (rank - under) / (below[index] - under)
            found[f"p{share * 100:.0f} {name}"] = low + width
    return found


def timed(records: Iterable[Record], of: Callable[[Record], float]) -> dict[str, list[float]]:
    """By deployment; a batch's line has no time of its own."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.service_tier != "batch" and of(record):
            found[record.deployment].append(of(record))
    return found


def measured(world: World, which: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for deployment, *times in world.last.times:
        found[deployment].append(times[which])
    return found


def estimates(world: World) -> list[float]:
    return [
        record.tokens_estimated / tokens([record], INPUT_BUCKETS)
        for record in world.now
        if record.tokens and record.tokens_estimated and not record.estimated and record.service_tier != "batch"
    ]


def more(now: dict[str, float], then: dict[str, float]) -> dict[str, float]:
    return {name: value - then.get(name, 0) for name, value in now.items()}


def drift(world: World) -> dict[str, float]:
    found = {}
    for source, scores in world.last.drift.items():
        new = scores[len(world.before.drift.get(source, [])) :]
        found[f"doubled: small and large ({source.removeprefix('shadow:')})"] = sum(new) / len(new)
    return found


def escalated(records: Iterable[Record]) -> int:
    return sum(record.route == "judged" and record.deployment == "large" for record in records)


def asked_again(records: Iterable[Record]) -> int:
    """Calls of the shaky one beyond the first of each request."""
    return sum(record.attempts - 1 for record in records if record.deployment == "shaky")


def decisions(records: Iterable[Record]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for record in records:
        first = "shy" if record.route == "judged" else record.deployment
        for policy in ("cheapest", "cascade"):
            found[f"{policy.capitalize()}: {first}"] += f"{policy}" in record.reasons
    return dict(found)


def usd_above(records: Iterable[Record]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for record in records:
        if record.cost is not None and record.reserved and record.cost > record.reserved:
            found[record.deployment] += (record.cost - record.reserved) / NANO
    return dict(found)


def failed_shares(records: list[Record]) -> dict[str, float]:
    bad = tally(failed(records), deployment_of)
    return {name: count / tally(records, deployment_of)[name] for name, count in bad.items()}


HOURLY = RATE / HOUR
SERVED = sum(times for _, model, times, status in BATCH if status == 200 for _ in range(1 + (model == "doubled")))
REFUSED = 4  # of the batch: one model that is not there, three budgets that are full

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
    "spend: Left of each budget": lambda w: {name: left(w, name.split()[0], limit) for name, limit in LIMITS.items()},
    "spend: Days left": lambda w: {
        name.replace(" tenant", ""): (limit - spent(w, name.split()[0])) / usd(of_tenant(w.now, name.split()[0]))[""]
        for name, limit in LIMITS.items()
        if of_tenant(w.now, name.split()[0])
    },
    "spend: Burn-down": lambda w: {name: limit - spent(w, name.split()[0]) for name, limit in LIMITS.items()},
    "spend: Cached input": lambda w: cached_shares(w.now),
    "spend: Cached share": lambda w: {"": cached_share(w.now)},
    "spend: Caching saved": lambda w: {"": caching_saved(w.now)},
    "spend: Lost to overhead": lambda w: {"": sum(record.overhead_cost for record in w.now) / NANO},
    "spend: What broken caches cost": lambda w: {
        f"acme long {cause}": (cost - w.before.breaks.get(cause, (0, 0))[1]) / NANO
        for cause, (_, cost) in w.last.breaks.items()
    },
    "spend: What breaks caches": lambda w: {
        cause: (requests - w.before.breaks.get(cause, (0, 0))[0]) / RATE
        for cause, (requests, _) in w.last.breaks.items()
    },
    "spend: Paid and baseline": lambda w: per({"baseline": baseline(w.now), "paid": usd(compared(w.now))[""]}, HOURLY),
    "routing: Who serves": lambda w: per(tally(w.now, lambda each: f"{each.route}: {each.deployment}"), RATE),
    "routing: What policies decide": lambda w: per(decisions(w.now), RATE),
    "routing: Escalated": lambda w: {"": escalated(w.now) / len(w.now)},
    "routing: Overhead": lambda w: {
        "": sum(record.overhead_cost for record in w.now) / NANO / usd(compared(w.now))[""]
    },
    "routing: Agreement with shadows": lambda w: {"": sum(drift(w).values()) / len(drift(w))},
    "routing: Escalations": lambda w: {"judged: refusal": escalated(w.now) / RATE},
    "routing: Paid over baseline": lambda w: {
        route: usd(some)[""] / baseline(some)
        for route in ("auto", "hard", "judged")
        if (some := [each for each in compared(w.now) if each.route == route])
    },
    "routing: Shadow drift": drift,
    "routing: What became of shadows": lambda w: {"doubled: compared": sum(bool(r.shadow_of) for r in w.now) / RATE},
    "routing: Token estimate over truth": lambda w: {
        f"{name[1:].strip()} %": value
        for name, value in quantiles((0.05, 0.5, 0.95), "tollgate_token_estimate_ratio", {"": estimates(w)}).items()
    },
    "routing: Made cheaper or refused by a budget": lambda w: {
        "degraded thrifty tenant": sum("budget" in r.reasons for r in of_tenant(w.now, "thrifty")) / RATE,
        "denied poor tenant": 2 / RATE,
        "denied acme user": 1 / RATE,
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
    "reliability: Failed by deployment": lambda w: failed_shares(w.now),
    "reliability: Given up for the next candidate": lambda w: {
        "down: upstream_overloaded": sum(record.route == "hard" for record in w.now) / RATE,
        "shaky: upstream_overloaded": len(failed(w.now)) / RATE,
    },
    "reliability: Asked again": lambda w: {"shaky: upstream_overloaded": asked_again(w.now) / RATE},
    "reliability: Provider keys": lambda w: {
        f"keyed {key}: ok": sum(r.route == "judged" for r in w.now) / 2 / RATE for key in ("first", "second")
    },
    "reliability: Batches that ended": lambda _: {"acme on simulated: completed": 1},
    "reliability: Alerts": lambda w: {f"{kind}: raised": n for kind, n in more(w.last.alerts, w.before.alerts).items()},
    "reliability: Whole request": lambda w: quantiles(
        (0.5, 0.95), "tollgate_request_seconds", timed(w.now, lambda r: r.latency_ms / 1000)
    ),
    "reliability: First token": lambda w: quantiles(
        (0.5, 0.95), "tollgate_time_to_first_token_seconds", timed(w.now, lambda r: r.first_token_ms / 1000)
    ),
    "reliability: Waiting for the provider": lambda w: quantiles((0.95,), "tollgate_upstream_seconds", measured(w, 1)),
    "reliability: Added by the gateway": lambda w: quantiles((0.5, 0.99), "tollgate_overhead_seconds", measured(w, 0)),
    "reliability: Records written": lambda w: {"written": len(w.now) / RATE},
    "reliability: Charged above the bound": lambda w: usd_above(w.now),
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
    "tenant: Refused": lambda _: {"": 2},
    "tenant: Saved against the baseline": lambda w: {
        "": baseline(of_tenant(w.now)) - usd(compared(of_tenant(w.now)))[""]
    },
    "tenant: Spend by deployment": lambda w: per(usd(of_tenant(w.now), deployment_of), HOURLY),
    "tenant: Tokens by kind": lambda w: per(by_kind(of_tenant(w.now)), RATE),
    "tenant: Requests by outcome": lambda w: per(
        {**tally(of_tenant(w.now), lambda each: str(each.outcome)), "refused": 2}, RATE
    ),
    "tenant: Requests by endpoint": lambda w: per(
        tally([*of_tenant(w.now), *[structs.replace(w.now[0], endpoint="chat")] * 2], lambda each: each.endpoint), RATE
    ),
    "tenant: Left of each budget": lambda w: {"tenant total": left(w, "acme", 100)},
    "tenant: Refused by a budget": lambda _: {"user total": 1},
}
QUIET = {"reliability: Charged above the bound"}
"""Where nothing is shown as long as all is well."""
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
    known = {label: value for label, value in shown.items() if value == value}  # an empty histogram is no number
    assert known or name in QUIET
    expected = EXPECTED[name](world)
    moved = {label: value for label, value in known.items() if value or label in expected}
    assert moved == pytest.approx({each: n for each, n in expected.items() if n or each in moved}, rel=1e-6, abs=1e-15)


RECORDED: dict[str, Callable[[World], dict[str, float]]] = {
    "tenant:tollgate_cost_usd_total:increase1h": lambda w: usd(w.now, tenant_of),
    "tenant:tollgate_cost_usd_total:increase1d": lambda w: usd(w.now, tenant_of),
    "tenant:tollgate_cost_usd_total:daily_mean7d": lambda w: per(usd(w.week, tenant_of), 7),
    "account:tollgate_budget_spent_usd:ratio": lambda w: {
        name.split()[0]: 1 - left(w, name.split()[0], limit) for name, limit in LIMITS.items()
    },
    "tenant_deployment:tollgate_cost_usd_total:share1h": lambda w: shares(w.now),
    "tenant_deployment:tollgate_cost_usd_total:share1d": lambda w: shares(w.now),
    "tenant_deployment:tollgate_tokens_total:cached_share1h": lambda w: cached_shares(w.now),
    "tenant_deployment:tollgate_tokens_total:cached_share1d": lambda w: cached_shares(w.now),
    **{
        f"tollgate_requests_total:error_ratio{span}": lambda w: {"": len(failed(w.now)) / len(w.now)}
        for span in ("5m", "30m", "1h", "6h")
    },
    "deployment:tollgate_retries_total:ratio10m": lambda w: {
        "shaky": asked_again(w.now) / tally(w.now, deployment_of)["shaky"] if asked_again(w.now) else 0
    },
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
            reply = web.post(f"{server.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
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
        lambda each: sum(t["requests"] for t in each) == SERVED,
    )
    query = {"query": "sum by (tenant) (tollgate_cost_usd_total)"}
    found = within(20, lambda: web.get(f"{prometheus.url}/api/v1/query", params=query).json()["data"]["result"], bool)
    shown = {sample["metric"]["tenant"]: round(float(sample["value"][1]) * NANO) for sample in found}
    assert shown == {each["tenant"]: round(float(each["cost_usd"]) * NANO) for each in told}


def test_prometheus_can_evaluate_every_rule_of_a_live_gateway(live: tuple[GatewayProcess, Prometheus]) -> None:
    _, prometheus = live

    def states() -> dict[str, str]:
        groups = web.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    found = within(20, states, lambda each: each and "unknown" not in each.values())
    assert set(found.values()) == {"ok"}
    assert set(EXPRESSIONS) < set(found)

"""Every metric, declared once.  Names and labels are a public contract (docs: design, section 7).

Labels are names from the configuration and nothing else: a model a client typed, a key, a user, a task or a tag never
makes a series.  Dollars are floats for Prometheus, but each series follows an exact integer sum of nano-dollars, so it
is the float nearest to the truth however many costs were added (a double tells nano-dollars apart up to 2**53 of them,
$9 million).

Spend that is presumed (a gateway died in mid-request) is counted under component "presumed".

One worker keeps plain counters.  Several workers share files in the directory `PROMETHEUS_MULTIPROC_DIR` names, which
belongs to one gateway only and is made and removed by whoever starts the workers; any of them answers for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from gateway.ledger.base import Balance
from gateway.money import BATCH
from gateway.tallies import Count, Dollars, Found, Served, Spread, Timers, Untold
from gateway.types import INPUT_BUCKETS, NANO, Bucket, Deployment, NanoUSD, Outcome, Record, Unit

DEPLOYMENT = ("deployment",)
COMPARED = ("route", "deployment", "other", "kind")
WINDOW = ("tenant", "account", "window")

COUNTERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "tollgate_requests": (("tenant", "route", "deployment", "endpoint", "outcome"), "Requests by how they ended."),
    "tollgate_tokens": (("tenant", "deployment", "kind"), "Tokens in disjoint kinds."),
    "tollgate_cost_usd": (("tenant", "deployment", "component"), "What calls cost, in dollars."),
    "tollgate_baseline_cost_usd": (
        ("tenant", "route"),
        "What the route's reference model would have cost, where both are known.",
    ),
    "tollgate_compared_cost_usd": (("tenant", "route"), "What the requests that have a baseline cost: less is saved."),
    "tollgate_overhead_cost_usd": (("tenant", "route"), "Judges and discarded answers; within the cost."),
    "tollgate_budget_denials": (WINDOW, "Requests a full budget refused."),
    "tollgate_budget_degrades": (WINDOW, "Requests a full budget made cheaper."),
    "tollgate_decisions": (
        ("route", "policy", "decision"),
        "Policies that gave a reason, and the deployment each left first.",
    ),
    "tollgate_escalations": (("route", "reason"), "Answers that were not good enough."),
    "tollgate_shadows": (("route", "result"), "Requests drawn to be answered by another plan too; what came of it."),
    "tollgate_shadow_compared": (COMPARED, "Answers compared with those of another plan."),
    "tollgate_shadow_agreement": (COMPARED, "The sum of how much they agree, 0 to 1 each."),
    "tollgate_failovers": (("deployment", "reason"), "Deployments given up for the next step of the plan."),
    "tollgate_retries": (("deployment", "reason"), "Calls repeated on the same deployment."),
    "tollgate_provider_key_calls": (
        ("provider", "key", "outcome"),
        "Calls by the name of the key they were made with: ok, denied, limited, failed; unreadable ones were not made.",
    ),
    "tollgate_prompt_cache_breaks": (
        ("tenant", "route", "cause"),
        "Requests whose prompt cache was not read as it could have been, by what broke it; an estimate.",
    ),
    "tollgate_prompt_cache_lost_usd": (("tenant", "route", "cause"), "What that cost, in dollars; an estimate."),
    "tollgate_usage_missing": (DEPLOYMENT, "Answers whose provider did not say what they used."),
    "tollgate_price_unknown": (DEPLOYMENT, "Calls whose cost is not known."),
    "tollgate_overshoot_usd": (DEPLOYMENT, "Dollars charged above what was set aside."),
    "tollgate_batches": (("tenant", "provider", "state"), "Batches by how they ended."),
    "tollgate_alerts": (("kind", "outcome"), "Alerts raised, and what became of telling webhooks."),
    "tollgate_records_written": ((), "Usage records written to SQL."),
    "tollgate_records_failed": (
        ("reason",),
        "Records SQL refused (quarantined), the disk refused (unspooled), or lost.",
    ),
}
"""Counters by name without `_total`: labels and help."""

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
OVERHEAD_SECONDS = (50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1)
RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 4)

HISTOGRAMS: Mapping[str, tuple[tuple[float, ...], str]] = {
    "tollgate_request_seconds": (SECONDS, "From the request's arrival to the end of the answer."),
    "tollgate_upstream_seconds": (SECONDS, "Of which waiting for the provider."),
    "tollgate_time_to_first_token_seconds": (SECONDS, "From the request's arrival to the first byte of the answer."),
    "tollgate_overhead_seconds": (OVERHEAD_SECONDS, "What the gateway itself added."),
    "tollgate_token_estimate_ratio": (RATIOS, "Input tokens estimated before the call / reported after it."),
}
"""Histograms by name, all by deployment: buckets and help."""

GAUGES: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "tollgate_budget_limit_usd": (WINDOW, "Budget limits.", ""),
    "tollgate_budget_spent_usd": (WINDOW, "Spent in the current window, as the ledger says.", ""),
    "tollgate_budget_reserved_usd": (WINDOW, "Set aside by requests in flight, as the ledger says.", ""),
    "tollgate_circuit_open": (DEPLOYMENT, "1 while a worker sends nothing there.", "livemax"),
    "tollgate_inflight_requests": (DEPLOYMENT, "Calls under way.", "livesum"),
    "tollgate_records_pending": ((), "Records that are not in SQL yet, at least.", "livemax"),
    "tollgate_ledger_up": ((), "1 if the ledger answered when this was asked for, else 0.", "livemostrecent"),
}
"""Gauges by name: labels, help and how workers' values join; those without are the same for all, from the ledger."""

INFO = "tollgate_deployment_info"
"""Always 1, by deployment, provider and model: joins what is counted by deployment with whose it is."""

NAMES = frozenset({f"{name}_total" for name in COUNTERS} | set(HISTOGRAMS) | set(GAUGES) | {INFO})
"""Every name there is, as queries write it."""

_PRESUMED = Outcome.PRESUMED
_BUCKETS = frozenset(map(str, Bucket))
_COMPONENTS = _BUCKETS | {"fee"}
_SHARED_KINDS = frozenset({"tenant", "global", "deployment", "provider"})


class Condition(Protocol):
    """What is shown of a deployment's health."""

    inflight: int

    @property
    def open(self) -> bool:
        """Whether nothing is sent there."""
        ...


class Metrics:
    """One per process.  `directory`: where several workers meet; None: there is one worker."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, directory: Path | None = None) -> None:
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._directory = directory or (Path(shared) if shared else None)
        self._registry = CollectorRegistry()
        self._counters = {
            name: Counter(name, text, labels, registry=self._registry) for name, (labels, text) in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(name, text, DEPLOYMENT, registry=self._registry, buckets=buckets)
            for name, (buckets, text) in HISTOGRAMS.items()
        }
        self._gauges: dict[str, Gauge] = {
            name: Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]  # one of its literals
            for name, (labels, text, mode) in GAUGES.items()
            if mode
        }
        self._untold: list[Untold] = []
        self._counts: dict[tuple[str, ...], Count] = {}
        self._dollars: dict[tuple[str, ...], Dollars] = {}
        self._timers = Found(self._timer)
        self._served: dict[tuple[str, str, str, str], Served] = {}

    def observe(self, record: Record, overhead_s: float | None = None, upstream_s: float | None = None) -> None:
        """Counts one request that reached a provider.  Times in seconds; None: not measured."""
        key = (record.tenant, record.route, record.deployment, record.endpoint)
        served = self._served.get(key) or self._serve(*key)
        served.requests[record.outcome].inc()
        went_in = 0
        for kind, tokens in record.tokens.items():
            served.tokens[kind if kind in _BUCKETS else "other"].inc(tokens)
            if kind in INPUT_BUCKETS:
                went_in += tokens
        self._costs(record, served)
        presumed = record.outcome is _PRESUMED
        if record.estimated and not presumed:
            self._child("tollgate_usage_missing", record.deployment).inc()
        if not presumed and record.service_tier != BATCH:
            self._timers[record.deployment].observe(record, went_in, overhead_s, upstream_s)

    def _costs(self, record: Record, served: Served) -> None:
        cost = record.cost
        if record.overhead_cost:
            served.route["tollgate_overhead_cost_usd"].add(record.overhead_cost)
        if cost is None:
            self._child("tollgate_price_unknown", record.deployment).inc()
            return
        if record.baseline_cost is not None:
            served.route["tollgate_baseline_cost_usd"].add(record.baseline_cost)
            served.route["tollgate_compared_cost_usd"].add(cost)
        rest = cost
        for component, amount in record.components.items():
            served.costs[component if component in _COMPONENTS else "other"].add(amount)
            rest -= amount
        if rest > 0:
            served.costs["presumed" if record.outcome is _PRESUMED else "other"].add(rest)
        if record.reserved and cost > record.reserved:
            self._spent("tollgate_overshoot_usd", record.deployment).add(cost - record.reserved)

    def refused(self, tenant: str, endpoint: str, code: str) -> None:  # noqa: ARG002  # a code is a client's doing: no label
        """Counts a request that ended before any provider saw it.  `tenant`: "" when nobody proved to be one."""
        self._child("tollgate_requests", tenant, "", "", endpoint, Outcome.REFUSED).inc()

    def denied(self, tenant: str, account: str, window: str) -> None:
        """Counts a refusal by a full budget.  Of `account` only the kind is kept: "user u7" is counted as "user"."""
        self._child("tollgate_budget_denials", tenant, account.partition(" ")[0], window).inc()

    def degraded(self, tenant: str, account: str, window: str) -> None:
        """Counts a request made cheaper by a full budget; `account` as in `denied`."""
        self._child("tollgate_budget_degrades", tenant, account.partition(" ")[0], window).inc()

    def decided(self, route: str, policy: str, decision: str) -> None:
        """Counts what a policy decided: `decision` is the deployment that it left first."""
        self._child("tollgate_decisions", route, policy, decision).inc()

    def escalated(self, route: str, reason: str) -> None:
        """Counts an answer that was not good enough."""
        self._child("tollgate_escalations", route, reason).inc()

    def shadowed(self, route: str, result: str) -> None:
        """Counts a request drawn for its route's shadow; `result` is one of a few words."""
        self._child("tollgate_shadows", route, result).inc()

    def compared(self, route: str, deployment: str, other: str, kind: str, agreement: float) -> None:
        """Counts two answers to one request, and how much they agree."""
        self._child("tollgate_shadow_compared", route, deployment, other, kind).inc()
        self._child("tollgate_shadow_agreement", route, deployment, other, kind).inc(agreement)

    def failed_over(self, deployment: str, reason: str) -> None:
        """Counts a deployment given up; `reason` is an error's code."""
        self._child("tollgate_failovers", deployment, reason).inc()

    def retried(self, deployment: str, reason: str) -> None:
        """Counts a repeated call; `reason` is an error's code."""
        self._child("tollgate_retries", deployment, reason).inc()

    def keyed(self, provider: str, key: str, outcome: str) -> None:
        """Counts a call made with one of a provider's keys, by the key's name."""
        self._child("tollgate_provider_key_calls", provider, key, outcome).inc()

    def cache_broken(self, tenant: str, route: str, cause: str, requests: int, lost: NanoUSD) -> None:
        """Counts requests that could have read more from a prompt cache; `cause` is one of the doctor's few words."""
        self._child("tollgate_prompt_cache_breaks", tenant, route, cause).inc(requests)
        self._spent("tollgate_prompt_cache_lost_usd", tenant, route, cause).add(lost)

    def batch(self, tenant: str, provider: str, state: str) -> None:
        """Counts a batch that has ended: completed, failed, expired, cancelled."""
        self._child("tollgate_batches", tenant, provider, state).inc()

    def alerted(self, kind: str, outcome: str) -> None:
        """Counts an alert that was `raised`, `delivered` to a webhook, or `undelivered`."""
        self._child("tollgate_alerts", kind, outcome).inc()

    def written(self, count: int) -> None:
        """Counts records that are now in SQL and were not before."""
        self._child("tollgate_records_written").inc(count)

    def failed(self, reason: str, count: int = 1) -> None:
        """Counts records that went astray: `quarantined`, `unspooled` (kept in memory) or `lost`."""
        self._child("tollgate_records_failed", reason).inc(count)

    def nano_usd(self, name: str = "tollgate_cost_usd") -> dict[tuple[str, ...], NanoUSD]:
        """The exact sums of this process behind a counter of dollars, by label values."""
        return {key[1:]: dollars.nano for key, dollars in self._dollars.items() if key[0] == name}

    def reached_ledger(self, answered: bool) -> None:
        """Shows whether the ledger has just answered."""
        self._gauges["tollgate_ledger_up"].set(answered)

    def publish(self, conditions: Mapping[str, Condition], pending: int) -> None:
        """Shows this worker's figures to whichever worker is asked.  Once a second is enough; `render` does it too."""
        untold, self._untold[:] = list(self._untold), []
        for each in untold:
            each.tell()
        circuit, inflight = self._gauges["tollgate_circuit_open"], self._gauges["tollgate_inflight_requests"]
        for deployment, condition in conditions.items():
            circuit.labels(deployment).set(condition.open)
            inflight.labels(deployment).set(condition.inflight)
        self._gauges["tollgate_records_pending"].set(pending)

    def render(
        self,
        balances: Iterable[Balance] = (),
        conditions: Mapping[str, Condition] | None = None,
        pending: int = 0,
        deployments: Iterable[Deployment] = (),
    ) -> bytes:
        """Prometheus text.  Budget gauges are `balances` as the ledger has just given them; milliseconds, not hot."""
        self.publish(conditions or {}, pending)
        registry = CollectorRegistry()
        if self._directory is None:
            registry.register(_Ready(self._registry.collect()))
        else:
            _bury(self._directory)
            MultiProcessCollector(registry, str(self._directory))  # type: ignore[no-untyped-call]  # the library has no types here
        registry.register(_Ready([*_budgets(balances), _info(deployments)]))
        return generate_latest(registry)

    def _child(self, *key: str) -> Count:
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = Count(self._series(key), self._untold)
        return count

    def _series(self, key: tuple[str, ...]) -> Counter:
        metric = self._counters[key[0]]
        return metric.labels(*key[1:]) if len(key) > 1 else metric

    def _spent(self, *key: str) -> Dollars:
        dollars = self._dollars.get(key)
        if dollars is None:
            dollars = self._dollars[key] = Dollars(self._series(key), self._untold)
        return dollars

    def _serve(self, tenant: str, route: str, deployment: str, endpoint: str) -> Served:
        served = self._served[tenant, route, deployment, endpoint] = Served(
            requests=Found(self._child, "tollgate_requests", tenant, route, deployment, endpoint),
            tokens=Found(self._child, "tollgate_tokens", tenant, deployment),
            costs=Found(self._spent, "tollgate_cost_usd", tenant, deployment),
            route=Found(lambda name: self._spent(name, tenant, route)),
        )
        return served

    def _timer(self, deployment: str) -> Timers:
        return Timers(
            *(
                Spread(self._histograms[name].labels(deployment), buckets, self._untold)
                for name, (buckets, _) in HISTOGRAMS.items()
            )
        )


class _Ready(Collector):
    """Families that were made a moment ago."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _budgets(balances: Iterable[Balance]) -> list[Metric]:
    """Limit, spent and reserved of money limits on accounts that may be labels.

    Two limits on the same account and window would be one series twice, which Prometheus refuses: the tighter is shown.
    """
    tightest: dict[tuple[str, str, str], Balance] = {}
    for balance in balances:
        if balance.limit.unit is not Unit.COST or balance.account.kind not in _SHARED_KINDS:
            continue
        key = (balance.account.tenant, _account_label(balance), str(balance.limit.window))
        if key not in tightest or balance.limit.amount < tightest[key].limit.amount:
            tightest[key] = balance
    families = [
        GaugeMetricFamily(name, text, labels=labels) for name, (labels, text, mode) in GAUGES.items() if not mode
    ]
    for key, balance in tightest.items():
        for family, nano in zip(families, (balance.limit.amount, balance.spent, balance.reserved), strict=True):
            family.add_metric(key, nano / NANO)
    return list(families)


def _info(deployments: Iterable[Deployment]) -> Metric:
    family = GaugeMetricFamily(INFO, "Always 1: whose a deployment is.", labels=("deployment", "provider", "model"))
    for each in deployments:
        family.add_metric((each.id, each.provider.id, each.upstream_model), 1)
    return family


def _account_label(balance: Balance) -> str:
    kind, id_ = balance.account.kind, balance.account.id
    return kind if kind in ("tenant", "global") else f"{kind}:{id_}"


def _bury(directory: Path) -> None:
    """Forgets the gauges of workers that died; what they counted stays."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]  # the library has no types here

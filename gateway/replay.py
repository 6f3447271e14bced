"""What recorded requests would have cost under other settings, and how far off that answer may be.  Pure.

A record keeps no prompt: policies that read prompts abstain here, and what a request needs beyond room is not checked.
A request that would go where it went is priced by the tokens it really had.  Elsewhere the input is taken as it was,
and the output as long as that deployment's recorded answers on the same route have been against the recorded one's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from gateway import money
from gateway.catalog import Catalog
from gateway.errors import UnknownModel
from gateway.plan import Context, Mode, Plan, Step, cost_key
from gateway.types import (
    INPUT_BUCKETS,
    OUTPUT_BUCKETS,
    Bucket,
    Deployment,
    Estimate,
    Format,
    Key,
    NanoUSD,
    Outcome,
    Request,
    Tenant,
    Usage,
)

ANSWERS_MIN = 30
"""Fewer recorded answers say nothing of how long a deployment's are."""
UNSEEN_ERROR = 0.5
"""Share by which the output cost of a deployment without enough records may be off: a guess, and told as such."""
SURE = 1.96  # standard errors: 95 %

Row = Mapping[str, Any]
Turnouts = Mapping[tuple[str, str], tuple[float, float]]
"""By route and deployment: the mean of outcomes, 0 to 1, and its error, +- at 95 %."""
NO_OUTCOMES: Turnouts = {}


@dataclass(slots=True)
class Lengths:
    """Tokens of a deployment's answers on one route."""

    count: int = 0
    total: int = 0
    squares: int = 0

    def add(self, tokens: int) -> None:
        """One more answer."""
        self.count, self.total, self.squares = self.count + 1, self.total + tokens, self.squares + tokens * tokens

    @property
    def mean(self) -> float:
        """Tokens."""
        return self.total / self.count if self.count else 0.0

    @property
    def error(self) -> float:
        """The standard error of the mean, as a share of it."""
        if self.count < ANSWERS_MIN or not self.total:
            return UNSEEN_ERROR / SURE
        return sqrt(max(0.0, self.squares / self.count - self.mean**2) / self.count) / self.mean


@dataclass(slots=True)
class Replay:
    """Sums over the records.  Costs in NanoUSD."""

    requests: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  # why: how many records are left out, on both sides
    was: NanoUSD = 0
    cost: NanoUSD = 0
    least: NanoUSD = 0  # cascades: no answer escalates
    most: NanoUSD = 0  # all do
    error: float = 0.0  # +- NanoUSD, 95 %: from the lengths of answers nobody has seen
    moved: int = 0  # requests that would go elsewhere
    deployments: dict[str, int] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)  # deployments whose answers are too few to know their length
    quality_was: float = 0.0  # sums of what outcomes say of the deployments, else of their rated `quality`
    quality: float = 0.0
    quality_error: float = 0.0  # +- of the second sum, 95 %: from the outcomes there are; a rating has none
    rated: int = 0  # requests for which both are known
    measured: int = 0  # of them, those that outcomes tell of
    tested: dict[tuple[str, str], int] = field(default_factory=dict)  # the same, by route and deployment

    def skip(self, why: str) -> None:
        """A record that says nothing here."""
        self.skipped[why] = self.skipped.get(why, 0) + 1


def replay(rows: Iterable[Row], catalog: Catalog, turnouts: Turnouts = NO_OUTCOMES) -> Replay:
    """The records under the settings of `catalog`; `turnouts` is what is known of how good deployments are."""
    kept = list(rows)
    lengths = _lengths(kept)
    found = Replay()
    spread: dict[tuple[str, str], float] = {}  # output cost by route and deployment that a wrong length would scale
    for row in kept:
        chosen = _add(found, row, catalog, lengths, spread)
        if chosen is not None:
            _rate(found, row, chosen, catalog, turnouts)
    found.quality_error = sqrt(sum((count * turnouts[key][1]) ** 2 for key, count in found.tested.items()))
    for key, cost in spread.items():
        known = lengths.get(key, Lengths())
        found.error += (SURE * known.error * cost) ** 2
        if known.count < ANSWERS_MIN:
            found.unseen.add(key[1])
    found.error = sqrt(found.error)
    return found


def _lengths(rows: Iterable[Row]) -> dict[tuple[str, str], Lengths]:
    found: dict[tuple[str, str], Lengths] = {}
    for row in rows:
        if row["outcome"] == Outcome.OK:
            found.setdefault((row["route"], row["deployment"]), Lengths()).add(row["output_tokens"])
    return found


def _add(
    found: Replay,
    row: Row,
    catalog: Catalog,
    lengths: Mapping[tuple[str, str], Lengths],
    spread: dict[tuple[str, str], float],
) -> Deployment | None:
    if row.get("shadow_of"):
        found.skip("is the gateway's own question")
        return None
    if row["outcome"] != Outcome.OK or row["cost"] is None:
        found.skip("failed or of unknown cost")
        return None
    try:
        plan = _plan(row, catalog, lengths)
    except UnknownModel:
        found.skip("asks for a model these settings do not have")
        return None
    if not plan.steps:
        found.skip("fits no candidate of these settings")
        return None
    last = plan.steps[-1] if plan.mode is Mode.CASCADE else plan.steps[0]
    least, most, chosen = plan.steps[0].expected_cost, plan.steps[0].expected_cost, plan.steps[0]
    if plan.mode is Mode.CASCADE:
        costs = [step.expected_cost for step in plan.steps]
        known = [cost for cost in costs if cost is not None]
        least, most = sum(known[:-1]), sum(known) if len(known) == len(costs) else None
    if chosen.deployment.id == row["deployment"] and plan.mode is not Mode.CASCADE:
        least = most = money.cost(_usage(row, row["tokens"]), chosen.deployment.price, row["at"]).total
    if least is None or most is None:
        found.skip("would have an unknown cost")
        return None
    found.requests += 1
    found.was += row["cost"]
    found.least, found.most = found.least + least, found.most + most
    found.cost += _between(plan, row, least, most)
    found.moved += chosen.deployment.id != row["deployment"]
    found.deployments[chosen.deployment.id] = found.deployments.get(chosen.deployment.id, 0) + 1
    for step in {chosen.deployment.id: chosen, last.deployment.id: last}.values():
        if step.deployment.id != row["deployment"]:
            key = (row["route"], step.deployment.id)
            spread[key] = spread.get(key, 0.0) + _output_cost(step)
    return chosen.deployment


def _between(plan: Plan, row: Row, least: NanoUSD, most: NanoUSD) -> NanoUSD:
    """A request that a recorded cascade escalated would be again; of one that nobody has judged, half way."""
    if plan.mode is not Mode.CASCADE:
        return least
    if "cascade: escalated" in row["reasons"]:
        return most
    return least if "cascade: good enough" in row["reasons"] else (least + most) // 2


def _rate(found: Replay, row: Row, chosen: Deployment, catalog: Catalog, turnouts: Turnouts) -> None:
    """Measured is compared with measured, else rated with rated."""
    route, was = row["route"], catalog.deployments.get(row["deployment"])
    known = turnouts.get((route, row["deployment"])), turnouts.get((route, chosen.id))
    if known[0] is not None and known[1] is not None:
        before, after = known[0][0], known[1][0]
        found.measured += 1
        found.tested[route, chosen.id] = found.tested.get((route, chosen.id), 0) + 1
    elif was is not None and was.quality is not None and chosen.quality is not None:
        before, after = was.quality, chosen.quality
    else:
        return
    found.quality_was += before
    found.quality += after
    found.rated += 1


def _plan(row: Row, catalog: Catalog, lengths: Mapping[tuple[str, str], Lengths]) -> Plan:
    """As the planner would, as far as a record tells."""
    route, candidates = catalog.resolve(row["model"])
    steps = [_step(row, deployment, lengths) for deployment in candidates]
    steps = [step for step in steps if _has_room(step)]
    steps.sort(key=lambda step: cost_key(step.expected_cost))
    plan = Plan(tuple(steps))
    asked = _request(row)
    for policy in route.policies if route is not None and steps else ():
        plan = policy.apply(plan, asked, Context(Tenant(row["tenant"]), row["at"]))
    return plan


def _step(row: Row, deployment: Deployment, lengths: Mapping[tuple[str, str], Lengths]) -> Step:
    tokens: Mapping[str, int] = row["tokens"]
    reasoning = tokens.get(Bucket.REASONING, 0)
    output, thought = row["output_tokens"] - reasoning, reasoning
    if deployment.id != row["deployment"]:
        ratio = _ratio(lengths, row["route"], row["deployment"], deployment.id)
        output, thought = round(output * ratio), round(thought * ratio)
    cached = row["cached_tokens"] if Bucket.CACHE_READ in deployment.price.rates else 0
    return Step(
        deployment,
        Estimate(row["input_tokens"], row["input_tokens"]),
        output_cap=max(1, output + thought),
        output_expected=output,
        at=row["at"],
        cached_expected=cached,
        reasoning_expected=thought,
    )


def _ratio(lengths: Mapping[tuple[str, str], Lengths], route: str, was: str, other: str) -> float:
    one, two = lengths.get((route, was)), lengths.get((route, other))
    if one is None or two is None or min(one.count, two.count) < ANSWERS_MIN or not one.mean:
        return 1.0
    return two.mean / one.mean


def _has_room(step: Step) -> bool:
    most = step.deployment.context_max
    return most is None or step.estimate.expected < most


def _output_cost(step: Step) -> float:
    rate = step.deployment.price.rates.get(Bucket.OUTPUT, 0)
    return (step.output_expected + step.reasoning_expected) * rate / money.MILLION


def _usage(row: Row, tokens: Mapping[str, int]) -> Usage:
    known = {Bucket(kind): count for kind, count in tokens.items() if kind in INPUT_BUCKETS | OUTPUT_BUCKETS}
    return Usage(known, row["fees"])


def _request(row: Row) -> Request:
    key = Key(row["key"], row["tenant"], "", b"")
    kind = Format(row["endpoint"])
    return Request(
        row["id"], kind, b"", {}, row["model"], row["stream"], row["at"], key, row["tags"], row["user"], row["task"]
    )

"""The cheapest candidate that is likely enough to answer well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from gateway.plan import Context, Plan, Step, asked_effort, cost_key
from gateway.types import Deployment, Request
from router_policies.difficulty.text import asked, plain_name


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Puts the cheapest candidate first whose P(good enough) reaches `target_quality`; the others follow as failover.

    It stands last among the policies that sort: one after it would undo its order.

    `target_quality`  0 to 1; with `relative`, a share of the best candidate's P instead of a P of its own.
    `artifact`        directory that `tollgate train` wrote; empty: the one that ships.
    `default`         deployment that answers where there is no evidence; none: the candidate of the highest
                      `quality`, without any the dearest.
    `models`          deployment id to the model of the artifact it stands for.  Without an entry it is matched by its
                      upstream model, then by its id.
    `by_quality`      a deployment that no name matches stands for the artifact's model of the nearest quality; off, it
                      is not judged.
    `embeddings`      directory with `model.onnx` and `tokenizer.json`, for an artifact trained with them.
    `easy_from`       mean P of all models the artifact knows from which a request is easy,
    `hard_below`      and below which it is hard; else it is medium.  Later policies may ask: `reasoning_cap` does.

    Where no candidate reaches the target the likeliest one goes first.  Where the request is unlike what was learned
    from, or a candidate is unknown to the artifact while no known one reaches the target, the policy abstains: the
    default goes first and the order of the others stays.  Candidates that are not healthy are never put first while
    others are.
    """

    target_quality: float = 0.95
    artifact: str = ""
    default: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    relative: bool = False
    by_quality: bool = False
    embeddings: str = ""
    easy_from: float = 0.85
    hard_below: float = 0.6
    _model: Any = field(init=False, repr=False, compare=False)
    _embed: Callable[[str], Any] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.target_quality <= 1:
            raise ValueError(f"difficulty: target_quality must be above 0 and at most 1, not {self.target_quality!r}")
        if not 0 <= self.hard_below <= self.easy_from <= 1:
            raise ValueError("difficulty: hard_below must not be above easy_from, both from 0 to 1")
        try:
            from router_policies.difficulty import artifact  # noqa: PLC0415 - numpy only where the policy is used
        except ModuleNotFoundError as missing:
            words = f"difficulty needs {missing.name}: pip install 'tollgate[difficulty]'"
            raise ValueError(words) from missing

        model = artifact.load(Path(self.artifact) if self.artifact else artifact.DEFAULT)
        if model.embedding_weights is not None and not self.embeddings:
            raise ValueError(
                "difficulty: this artifact was trained with embeddings: name the ONNX model in `embeddings`"
            )
        unknown = [name for name in self.models.values() if plain_name(name) not in model.place]
        if unknown:
            raise ValueError(f"difficulty: the artifact knows no model {', '.join(unknown)}")
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_embed", _embedder(self.embeddings) if model.embedding_weights is not None else None)

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps, the cheapest that is good enough first."""
        if len(plan.steps) < 2:
            return plan
        text = asked(request.body)
        if not text:
            return self._abstain(plan, "no text to judge")
        opinion = self._model.opinion(text, self._embed)
        if not opinion.known:
            return self._abstain(plan, opinion.why)
        plan = plan.classified(opinion.task, self._level(opinion.p), asked_effort(request.body) or "")
        ranked = [(self._p(step.deployment, opinion.p), step) for step in plan.steps]
        judged = [(p, step) for p, step in ranked if p is not None and step.healthy]
        if not judged:
            return self._abstain(plan, f"no candidate is known on {opinion.task}")
        return self._decided(plan, ranked, judged, opinion.task)

    def _decided(
        self, plan: Plan, ranked: list[tuple[float | None, Step]], judged: list[tuple[float, Step]], task: str
    ) -> Plan:
        best = max(p for p, _ in judged)
        target = self.target_quality * best if self.relative else self.target_quality
        enough = [(p, step) for p, step in judged if p >= target]
        if enough:
            p, first = min(enough, key=lambda each: cost_key(each[1].expected_cost))
            reason = f"difficulty: {first.deployment.id} is good enough on {task} (P {p:.2f} >= {target:.2f})"
        elif len(judged) < sum(step.healthy for step in plan.steps):
            return self._abstain(plan, f"no known candidate reaches {target:.2f} on {task}, others are unknown")
        else:
            p, first = min(judged, key=lambda each: (-each[0], cost_key(each[1].expected_cost)))
            reason = f"difficulty: {first.deployment.id} is the likeliest on {task} (P {p:.2f} < {target:.2f})"
        likely = {step.deployment.id: p for p, step in ranked if p is not None}
        return plan.sorted(lambda step: _rank(step, first, likely.get(step.deployment.id, -1.0), target)).because(
            reason
        )

    def _abstain(self, plan: Plan, why: str) -> Plan:
        safe = self._safe(plan)
        reason = f"difficulty: abstains, {why}; default {safe.deployment.id}"
        return plan.sorted(lambda step: step is not safe).because(reason)

    def _safe(self, plan: Plan) -> Step:
        steps = [step for step in plan.steps if step.healthy] or list(plan.steps)
        named = [step for step in steps if step.deployment.id == self.default]
        if named:
            return named[0]
        rated = [step for step in steps if step.deployment.quality is not None]
        if rated:
            return max(rated, key=lambda step: step.deployment.quality or 0.0)
        return max(steps, key=lambda step: step.expected_cost or 0)

    def _level(self, p: Sequence[float]) -> str:
        known = [float(each) for each in p if not isnan(each)]
        mean = sum(known) / len(known) if known else 0.0
        return "easy" if mean >= self.easy_from else "hard" if mean < self.hard_below else "medium"

    def _p(self, deployment: Deployment, p: Sequence[float]) -> float | None:
        place = self._place(deployment)
        if place is None:
            return None
        value = float(p[place])
        return None if isnan(value) else value

    def _place(self, deployment: Deployment) -> int | None:
        place: Mapping[str, int] = self._model.place
        for name in (self.models.get(deployment.id), deployment.upstream_model, deployment.id):
            found = place.get(plain_name(name)) if name else None
            if found is not None:
                return found
        if not self.by_quality or deployment.quality is None:
            return None
        quality = deployment.quality
        return int(abs(self._model.quality - quality).argmin())


def _rank(step: Step, first: Step, p: float, target: float) -> tuple[Any, ...]:
    """The chosen, then those good enough by cost, then the others by P; the unhealthy after the healthy."""
    enough = p >= target
    return (step is not first, not step.healthy, not enough, 0.0 if enough else -p, cost_key(step.expected_cost))


def _embedder(directory: str) -> Callable[[str], Any]:
    from router_policies.difficulty.embeddings import Embedder  # noqa: PLC0415 - an optional dependency

    return Embedder(Path(directory)).one

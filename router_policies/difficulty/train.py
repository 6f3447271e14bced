"""A trained artifact with its card; never a worse one over a better one unless forced."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from router_policies.difficulty import artifact
from router_policies.difficulty.evaluation.curves import Floats, apgr, auroc, calibration_error
from router_policies.difficulty.learn import Learned, Options, Progress, learn, nothing
from router_policies.difficulty.model import Array, Model, fingerprint
from router_policies.difficulty.outcomes import Outcomes
from router_policies.difficulty.text import plain_name

FRESH_MIN = 50
"""Two artifacts are compared on labels the old one was not trained on, if there are this many queries of them."""
LIMITS = (
    "It knows the tasks listed here, abstains from what is unlike them, and does not carry over to other work.",
    "P is the chance of a score at or above good_at in these outcomes, at the time they were recorded.",
    "It reads the head and the tail of the last user message: no system prompt, earlier turns, tools or images.",
)


class WorseArtifact(Exception):
    """The artifact that is there is better than the one just trained; nothing was written."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Mean log loss of the old and the new artifact, on how many labels, and which labels those are."""

    old: float
    new: float
    labels: int
    on: str


def train(
    outcomes: Outcomes,
    out: Path,
    *,
    files: Sequence[Path] = (),
    options: Options | None = None,
    licence: str = "not stated",
    force: bool = False,
    progress: Progress = nothing,
    embeddings: Array | None = None,
) -> dict[str, Any]:
    """Trains on `outcomes`, writes the artifact to `out`, and returns its card.

    Raises WorseArtifact, and writes nothing, where `out` holds a better one and `force` is not set; ValueError where
    there is too little to learn from.
    """
    options = options or Options()
    learned = learn(outcomes, options, progress, embeddings)
    if (out / artifact.ARRAYS).exists() and not force:
        _refuse_worse(out, learned, outcomes, options, embeddings)
    made = card(learned, outcomes, files, options, licence)
    artifact.save(learned.model, made, out)
    return artifact.card(out)


def card(learned: Learned, outcomes: Outcomes, files: Sequence[Path], options: Options, licence: str) -> dict[str, Any]:
    """What an artifact is: its data, date, figures and limits.  Every figure is on rows held out while learning."""
    good = _good(outcomes.scores, options)
    labelled = ~np.isnan(good)
    return {
        "what": "P(good enough) of each model for a prompt, from its text",
        "learned_from": "readings of a gateway's own records" if outcomes.salt else "texts",
        "trained": datetime.now(UTC).date().isoformat(),
        "data": [{"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files],
        "licence_of_data": licence,
        "queries": len(outcomes),
        "labels": int(labelled.sum()),
        "tasks": dict(sorted(Counter(outcomes.domains).items())),
        "models": {
            name: {
                "labels": int(labelled[:, i].sum()),
                "quality": round(float(learned.model.quality[i]), 4),
                "auroc": _rounded(auroc(learned.held_out[:, i].astype(np.float64), good[:, i])),
            }
            for i, name in enumerate(outcomes.models)
        },
        "figures": _figures(learned, outcomes, good),
        "limits": list(LIMITS),
        "options": asdict(options),
        "embeddings": learned.model.embedding_weights is not None,
        "made_with": {name: version(name) for name in ("numpy", "scikit-learn")},
    }


def _figures(learned: Learned, outcomes: Outcomes, good: Floats) -> dict[str, Any]:
    held_out = learned.held_out.astype(np.float64)
    base = np.broadcast_to(_base(good), good.shape)
    loss, base_loss = log_loss(held_out, good), log_loss(np.where(np.isnan(held_out), np.nan, base), good)
    out: dict[str, Any] = {
        "log_loss": _rounded(loss),
        "skill": _rounded(1 - loss / base_loss) if base_loss else 0.0,
        "calibration_error": _rounded(calibration_error(held_out.ravel(), good.ravel())),
    }
    both = ~np.isnan(outcomes.scores).any(axis=1)
    if both.sum() >= FRESH_MIN and len(outcomes.models) > 1:
        mean = outcomes.scores[both].mean(axis=0)
        weak, strong = int(mean.argmin()), int(mean.argmax())
        gain = outcomes.scores[both, strong] - outcomes.scores[both, weak]
        out["apgr"] = _rounded(apgr(held_out[both, strong] - held_out[both, weak], gain))
        out["apgr_of"] = f"{outcomes.models[strong]} over {outcomes.models[weak]}"
    return out


def log_loss(p: Floats, good: Floats) -> float:
    """Mean of -log P of what happened, over pairs that have both; 0 without one."""
    both = ~np.isnan(p) & ~np.isnan(good)
    bounded = np.clip(p[both], 0.005, 0.995)
    return float(-np.log(np.where(good[both] > 0.5, bounded, 1 - bounded)).mean()) if both.any() else 0.0


def compared(
    old: Model,
    old_card: dict[str, Any],
    learned: Learned,
    outcomes: Outcomes,
    options: Options,
    embeddings: Array | None = None,
) -> Compared:
    """The old artifact and the new one on the same labels; where the old one has no opinion it says the base rate."""
    seen = set(old.trained_on.tolist())
    fresh = np.flatnonzero([fingerprint(prompt) not in seen for prompt in outcomes.prompts])
    if len(fresh) < FRESH_MIN or (old.embedding_weights is not None and embeddings is None):
        new = _figures(learned, outcomes, _good(outcomes.scores, options))
        return Compared(-float(old_card["figures"]["skill"]), -float(new["skill"]), 0, "each one's own held-out labels")
    good = _good(outcomes.scores, options)[fresh]
    rows = None if embeddings is None or old.embedding_weights is None else embeddings[fresh]
    thought = old.probabilities([outcomes.prompts[i] for i in fresh], rows)
    place = [old.place.get(plain_name(name)) for name in outcomes.models]
    old_p = np.column_stack([np.full(len(fresh), np.nan) if at is None else thought[:, at] for at in place])
    base = _base(good)
    old_p, new_p = (np.where(np.isnan(p), base, p) for p in (old_p, learned.held_out[fresh].astype(np.float64)))
    return Compared(log_loss(old_p, good), log_loss(new_p, good), int((~np.isnan(good)).sum()), "labels new to both")


def _refuse_worse(out: Path, learned: Learned, outcomes: Outcomes, options: Options, embeddings: Array | None) -> None:
    found = compared(artifact.load(out), artifact.card(out), learned, outcomes, options, embeddings)
    if found.new > found.old + 1e-4:
        raise WorseArtifact(
            f"{out} holds a better artifact: loss {found.old:.4f} against {found.new:.4f} of the new one, "
            f"on {found.on}. Nothing was written."
        )


def _good(scores: Floats, options: Options) -> Floats:
    return np.where(np.isnan(scores), np.nan, (scores >= options.good_at).astype(np.float64))


def _base(good: Floats) -> Floats:
    """The base rate of each model; one half for a model without labels."""
    labelled = ~np.isnan(good)
    count = labelled.sum(axis=0)
    return np.where(count > 0, np.where(labelled, good, 0).sum(axis=0) / np.maximum(count, 1), 0.5)


def _rounded(value: float) -> float:
    return round(value, 4)

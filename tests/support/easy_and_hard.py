"""A workload of easy and hard questions, a cheap model that is right on the easy ones, and a strong one."""

from __future__ import annotations

import numpy as np

from router_policies.difficulty.outcomes import Outcomes

EASY = "What colour is the {0} apple that {1} bought at the market this morning?"
HARD = "Prove the {0} theorem for the {1} manifold using spectral sequences and sheaves."
NAMES = [f"{a}{b}" for a in ("red", "old", "new", "big", "sad") for b in ("fox", "cat", "owl", "elk", "bee", "ant")]


def made_outcomes(count: int = 400, seed: int = 0) -> Outcomes:
    """A cheap model that is right on easy questions only, and a strong one that is right on most."""
    rng = np.random.default_rng(seed)
    hard = rng.random(count) < 0.5
    prompts = [
        (HARD if is_hard else EASY).format(*rng.choice(NAMES, 2)) + (" Why?" if rng.random() < 0.3 else "")
        for is_hard in hard
    ]
    cheap = np.where(hard, rng.random(count) < 0.05, rng.random(count) < 0.98)
    strong = rng.random(count) < 0.97
    return Outcomes(
        ids=tuple(map(str, range(count))),
        prompts=tuple(prompts),
        domains=tuple("proofs" if is_hard else "colours" for is_hard in hard),
        models=("small", "large"),
        scores=np.column_stack([cheap, strong]).astype(np.float64),
        costs=np.tile([0.001, 0.02], (count, 1)),
    )

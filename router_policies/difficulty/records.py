"""A gateway's own records as outcomes: readings in place of prompts, deployments as models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from router_policies.difficulty.outcomes import Outcomes, OutcomesError
from router_policies.difficulty.text import Reading


def outcomes_of(learned: Sequence[Any], salt: str) -> Outcomes:
    """What `gateway.sql.lessons` holds, row by row; a task is a route, with its feature if its requests name one.

    Raises OutcomesError where nothing is kept.
    """
    if not learned:
        raise OutcomesError("no request was kept to learn from: see `learning` in the settings")
    models = tuple(sorted({name for each in learned for name in each.scores}))
    place = {name: at for at, name in enumerate(models)}
    scores = np.full((len(learned), len(models)), np.nan)
    costs = np.full_like(scores, np.nan)
    for row, each in enumerate(learned):
        for name, score in each.scores.items():
            scores[row, place[name]] = np.nan if score is None else score
        for name, cost in each.costs.items():
            costs[row, place[name]] = cost
    lessons = [each.lesson for each in learned]
    return Outcomes(
        ids=tuple(lesson.id for lesson in lessons),
        prompts=tuple(Reading(lesson.words, lesson.shape, lesson.length) for lesson in lessons),
        domains=tuple(_task(each.lesson.route, each.feature) for each in learned),
        models=models,
        scores=scores,
        costs=costs,
        salt=salt,
    )


def _task(route: str, feature: str) -> str:
    return f"{route}/{feature}" if feature else route

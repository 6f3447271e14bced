"""Outcome files: what each model answered, query by query.

Parquet in long format, one row for each query and model: `query_id, prompt, model, score` (0 to 1; null: not labelled),
and if there: `domain` (the task), `cost` (dollars), `answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_policies.difficulty.text import Prompt, plain_name

REQUIRED = ("query_id", "prompt", "model", "score")
OPTIONAL = ("domain", "cost", "answer")
ROUNDING = 1e-6


class OutcomesError(ValueError):
    """A file that does not hold outcomes."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Queries x models.  `scores` and `costs` (dollars) hold nan, `answers` None, where nothing is known."""

    ids: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    domains: tuple[str, ...]
    models: tuple[str, ...]
    scores: NDArray[np.float64]
    costs: NDArray[np.float64]
    answers: NDArray[np.object_] | None = None
    salt: str = field(default="", repr=False)  # of readings that stand for prompts

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts; empty where only a reading of one was kept."""
        return tuple(prompt if isinstance(prompt, str) else "" for prompt in self.prompts)

    def rows(self, index: NDArray[np.intp]) -> Outcomes:
        """Some of the queries, in that order."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            prompts=tuple(self.prompts[i] for i in index),
            domains=tuple(self.domains[i] for i in index),
            scores=self.scores[index],
            costs=self.costs[index],
            answers=None if self.answers is None else self.answers[index],
        )

    def columns(self, index: Sequence[int]) -> Outcomes:
        """Some of the models, in that order."""
        keep = list(index)
        return replace(
            self,
            models=tuple(self.models[i] for i in keep),
            scores=self.scores[:, keep],
            costs=self.costs[:, keep],
            answers=None if self.answers is None else self.answers[:, keep],
        )


def read(files: Sequence[Path]) -> Outcomes:
    """The outcomes in these files together.  Raises OutcomesError."""
    parts = [_columns(file) for file in files]
    merged = {name: [value for part in parts for value in part[name]] for name in (*REQUIRED, *OPTIONAL)}
    return outcomes(merged)


def outcomes(columns: dict[str, list[Any]]) -> Outcomes:
    """Long columns as queries x models; queries keep their order, names that differ by vendor path are one model.

    Raises OutcomesError where there are no rows.
    """
    row: dict[str, int] = {}
    first: list[int] = []
    for i, key in enumerate(columns["query_id"]):
        if key is not None and key not in row:
            row[key] = len(first)
            first.append(i)
    if not row:
        raise OutcomesError("there are no outcomes in it")
    named = {plain_name(model): model for model in sorted({m for m in columns["model"] if m is not None}, reverse=True)}
    models = tuple(sorted(named.values()))
    column = {plain_name(model): i for i, model in enumerate(models)}
    scores = np.full((len(first), len(models)), np.nan)
    costs = np.full_like(scores, np.nan)
    answers = np.full(scores.shape, None, dtype=object)
    long = zip(*(columns[name] for name in ("query_id", "model", "score", "cost", "answer")), strict=True)
    for key, model, score, cost, answer in long:
        if model is None or key is None:
            continue
        at = row[key], column[plain_name(model)]
        scores[at] = np.nan if score is None else score
        costs[at] = np.nan if cost is None else cost
        answers[at] = answer
    _refuse_beyond("score", scores, 1.0, tuple(row), models)
    _refuse_beyond("cost", costs, np.inf, tuple(row), models)
    return Outcomes(
        ids=tuple(row),
        prompts=tuple(columns["prompt"][i] or "" for i in first),
        domains=tuple(columns["domain"][i] or "all" for i in first),
        models=models,
        scores=scores,
        costs=costs,
        answers=answers if any(answer is not None for answer in columns["answer"]) else None,
    )


def _refuse_beyond(
    what: str, values: NDArray[np.float64], most: float, ids: Sequence[object], models: Sequence[str]
) -> None:
    wrong = np.argwhere((values < -ROUNDING) | (values > most + ROUNDING) | np.isinf(values))
    if len(wrong):
        row, column = wrong[0]
        right = "from 0 to 1" if most == 1.0 else "dollars, 0 or more"
        raise OutcomesError(
            f"the {what} of {models[column]!r} for query {ids[row]!r} is {values[row, column]:g}: it must be {right}"
        )


def _columns(file: Path) -> dict[str, list[Any]]:
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 - only training and evaluation need it

    try:
        table = parquet.read_table(file)
    except (OSError, ArrowException) as error:
        raise OutcomesError(f"{file} cannot be read as parquet: {error}") from error
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise OutcomesError(f"{file} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
    empty: list[Any] = [None] * table.num_rows
    return {
        name: table.column(name).to_pylist() if name in table.column_names else empty for name in (*REQUIRED, *OPTIONAL)
    }

"""P(a cheap answer is right), read from the prompt's end and the answer together.

It is the same model as for prompts, learned from pairs: its text is the pair, its one "model" is the answer given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from router_policies.difficulty.learn import Learned, Options, Progress, learn, nothing
from router_policies.difficulty.outcomes import Outcomes

PROMPT_CHARS = 500
ANSWER = "answer"


def pair_text(prompt: str, answer: str) -> str:
    """What is read of a prompt and its answer."""
    return f"{prompt[-PROMPT_CHARS:]}\n{answer}"


def pairs(prompts: Sequence[str], answers: Sequence[str], scores: Sequence[float], tasks: Sequence[str]) -> Outcomes:
    """Prompts with one answer each, as outcomes of one model: the answer."""
    column = np.array(scores, dtype=np.float64)[:, None]
    return Outcomes(
        ids=tuple(str(i) for i in range(len(prompts))),
        prompts=tuple(pair_text(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)),
        domains=tuple(tasks),
        models=(ANSWER,),
        scores=column,
        costs=np.full(column.shape, np.nan),
    )


def learn_verifier(
    labelled: Outcomes, questions: Sequence[str], options: Options | None = None, progress: Progress = nothing
) -> Learned:
    """A verifier; answers to one question are never on both sides of a split."""
    return learn(labelled, options, progress, groups=questions)


def read_responses(file: Path, prompts: dict[str, str]) -> tuple[Outcomes, list[str], list[str]]:
    """Recorded answers (`dataset, query_id, model, response, score`) whose prompt is known: pairs, questions,
    models."""
    from pyarrow import parquet  # noqa: PLC0415 - only training and evaluation need it

    rows = parquet.read_table(file, columns=["dataset", "query_id", "model", "response", "score"]).to_pylist()
    kept = [row for row in rows if row["response"] is not None and row["query_id"] in prompts]
    made = pairs(
        [prompts[row["query_id"]] for row in kept],
        [row["response"] for row in kept],
        [row["score"] for row in kept],
        [row["dataset"] for row in kept],
    )
    return made, [row["query_id"] for row in kept], [row["model"] for row in kept]

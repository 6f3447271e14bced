"""P(a cheap answer is right), read from the prompt's end and the answer together.

It is the same model as for prompts, learned from pairs: its text is the pair, its one "model" is the answer given.  The
policy `cascade` finds it by the entry point `tollgate.verifiers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.types import Request
from router_policies.difficulty import artifact
from router_policies.difficulty.model import Model
from router_policies.difficulty.text import asked

PROMPT_CHARS = 500
ANSWER = "answer"


def pair_text(prompt: str, answer: str) -> str:
    """What is read of a prompt and its answer."""
    return f"{prompt[-PROMPT_CHARS:]}\n{answer}"


@dataclass(frozen=True)
class TrainedVerifier:
    """See gateway.answers.verifying.Verifier."""

    model: Model
    bound: float

    def right(self, request: Request, answer: str) -> float | None:
        """See Verifier."""
        prompt = asked(request.body)
        if not prompt or not answer.strip():
            return None
        opinion = self.model.opinion(pair_text(prompt, answer))
        return float(opinion.p[0]) if opinion.known and not np.isnan(opinion.p[0]) else None


def load(directory: str) -> TrainedVerifier:
    """The verifier in `directory`.  Raises ValueError where there is none."""
    model, card = artifact.load(Path(directory)), artifact.card(Path(directory))
    if model.models != (ANSWER,) or "verifier" not in card:
        raise ValueError(f"{directory} holds an artifact that reads requests, not answers: train it with --verifier")
    return TrainedVerifier(model, float(card["verifier"]["bound"]))

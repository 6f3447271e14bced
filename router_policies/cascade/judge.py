"""Who says whether a cheap answer is good enough.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from msgspec.structs import replace

from gateway.answers.grading import grade, question
from gateway.answers.likeness import alike
from gateway.answers.verifying import Verifier
from gateway.plan import Said, Step, Verdict
from gateway.types import Format, Request
from router_policies.cascade.flaws import flaw, refuses


@dataclass(frozen=True, slots=True)
class Panel:
    """See gateway.plan.Judge.  Every member must be content.

    `agreeing`      so many answers must say the same; 1: one is enough.
    `logprob_min`   the least mean probability of the tokens, 0 to 1; an answer that has none is unsure.
    `score_min`     the least score of the LLM judge, 0 to 1.
    `verifier`      a first answer that it finds right with `right_min` is taken, whatever the others would say.
    """

    agreeing: int = 1
    alike_from: float = 0.8
    logprob_min: float | None = None
    llm: bool = False
    score_min: float = 0.7
    verifier: Verifier | None = None
    right_min: float = 1.0
    trial_s: float | None = None
    keep_alive_s: float = 5.0
    early_chars: int | None = None

    def asks(self, request: Request, step: Step, said: Sequence[Said]) -> Request:
        """See Judge."""
        if step.judging:
            return question(request, said[-1])
        if self.logprob_min is None or request.format is not Format.CHAT or request.body.get("logprobs") is True:
            return request
        return _asking(request, {**request.body, "logprobs": True})

    def verdict(self, request: Request, said: Sequence[Said]) -> Verdict:
        """See Judge."""
        last = said[-1]
        if last.step.judging:
            return self._graded(said)
        wrong = flaw(request, last) or self._unsure(last)
        if wrong:
            return Verdict(reason=wrong)
        if self.verifier is not None and len(said) == 1:
            right = self.verifier.right(request, last.text)
            if right is not None and right >= self.right_min:
                return Verdict(take=0, reason="verified")
            if self.agreeing == 1 and not self.llm:
                return Verdict(reason="not_verified")
        return self._agreed(said)

    def promising(self, text: str) -> bool:
        """See Judge."""
        return not refuses(text)

    def _unsure(self, last: Said) -> str:
        if self.logprob_min is None:
            return ""
        sure = exp(sum(last.logprobs) / len(last.logprobs)) if last.logprobs else 0.0
        return "" if sure >= self.logprob_min else "unsure"

    def _agreed(self, said: Sequence[Said]) -> Verdict:
        """Answers must agree first, then the LLM judge hears the last."""
        if len(said) < self.agreeing:
            return Verdict()
        if self.agreeing > 1 and not all(alike(said[0], each, self.alike_from) for each in said[1:]):
            return Verdict(reason="disagreement")
        return Verdict() if self.llm else Verdict(take=0)

    def _graded(self, said: Sequence[Said]) -> Verdict:
        found = grade(said[-1].text)
        if found is None:
            return Verdict(reason="judge_unclear")
        if found < self.score_min:
            return Verdict(reason="judged_poor")
        return Verdict(take=len(said) - 2, reason="judged well")


def _asking(request: Request, body: dict[str, Any]) -> Request:
    return replace(request, body=body, raw=json.dumps(body).encode())

"""Which steps a cascade has, and when it pays."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from gateway.answers.grading import SHOWN_CHARS
from gateway.answers.verifying import Verifier, verifier
from gateway.plan import Context, Mode, Plan, Step
from gateway.types import Capability, Estimate, Format, NanoUSD, Request
from router_policies.cascade.judge import Panel

FORMATS = frozenset({Format.CHAT, Format.MESSAGES, Format.RESPONSES})
SCORE_TOKENS = 16
QUESTION_TOKENS = 100
CHARS_PER_TOKEN = 4
ESCAPED = 3  # characters of JSON in ASCII for a byte of UTF-8, at most


@dataclass(frozen=True, slots=True)
class Cascade:
    """Asks the cheapest candidate first, judges its answer, and asks `strong` only if that is not good enough.

    An answer that was refused, cut off, is empty, calls a tool wrongly or breaks the schema asked for is never good
    enough.  More can be asked of it:

    `agree`        so many answers must say the same: 2 asks the two cheapest candidates.
    `samples`      or one candidate so many times (self-consistency).
    `alike_from`   the share of words in common from which texts without a final answer say the same.
    `logprob_min`  the least mean probability of its tokens, 0 to 1; only from clients of chat completions.
    `llm`          deployment, one of the candidates, that grades it; `score_min`, 0 to 1, is the least grade.
    `verifier`     directory of what `tollgate train --verifier` wrote: it reads the request with the first answer.  One
                   that it finds right with `verified_min` (null: the bound it was calibrated to) is taken at once;
                   any other has to pass what else is asked, and where nothing is, the strong model is asked.

    `strong`           deployment; none: the candidate of the highest `quality`, without any the dearest.
    `min_price_ratio`  with what is tried first, judges included, costing more than 1 / this of `strong`, there is no
                       cascade and the plan stays as it is.
    `accepted`         the share of first answers that were good enough, as measured (`tollgate evaluate` tells what
                       "ended cheap"); with it a cascade is there wherever it is expected to cost less than `strong`
                       alone, whatever the ratio: that is, where it is paid for by those it spares.
    `trial_ms_max`     once this has passed since the request came, the strong model is asked; null: never mind.
    `keep_alive_s`     how often a client that waits for a stream hears a comment.
    `early_chars`      a stream whose first characters are no refusal goes through from there on, judged no further;
                       null: it is held until it is whole.  Only where nothing more is asked of the answer.

    It stands last.  What is set aside is the sum of all steps; what was paid for in vain is the record's overhead.
    """

    strong: str | None = None
    min_price_ratio: float = 10.0
    accepted: float | None = None
    agree: int = 1
    samples: int = 1
    alike_from: float = 0.8
    logprob_min: float | None = None
    llm: str | None = None
    score_min: float = 0.7
    verifier: str | None = None
    verified_min: float | None = None
    trial_ms_max: int | None = None
    keep_alive_s: float = 5.0
    early_chars: int | None = None
    _verifier: Verifier | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.min_price_ratio < 1:
            raise ValueError("cascade: min_price_ratio must be 1 or more")
        if self.agree < 1 or self.samples < 1 or (self.agree > 1 and self.samples > 1):
            raise ValueError("cascade: agree and samples must be 1 or more, one of them 1")
        for name in ("accepted", "alike_from", "logprob_min", "score_min", "verified_min"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"cascade: {name} must be from 0 to 1, not {share!r}")
        if self.keep_alive_s <= 0 or (self.trial_ms_max is not None and self.trial_ms_max <= 0):
            raise ValueError("cascade: keep_alive_s and trial_ms_max must be above 0")
        if self.early_chars is not None and (self.early_chars < 1 or self._asks_more()):
            raise ValueError("cascade: early_chars must be 1 or more, and only where nothing more is asked of answers")

        object.__setattr__(self, "_verifier", None if self.verifier is None else verifier(self.verifier))

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The cascade; the same plan with a reason where it would not pay or cannot be."""
        if plan.mode is Mode.CASCADE or len(plan.steps) < 2 or not _can_be_judged(plan, request):
            return plan
        able = [step for step in plan.steps if step.healthy and step.expected_cost is not None]
        strong = self._strong(able)
        if strong is not None:  # at its standard price: nobody is asked after it
            strong = [step for step in able if step.deployment.id == strong.deployment.id][-1]
        trials = self._trials(able, strong, request) if strong is not None else []
        if strong is None or not trials:
            return plan.because("cascade: too few candidates")
        cheap = sum(step.expected_cost or 0 for step in trials)
        if not self._pays(cheap, strong.expected_cost or 0):
            return plan.because(f"cascade: would not pay, {strong.deployment.id} is too cheap")
        ids = {step.deployment.id for step in (*trials, strong)}
        kept = plan.only(lambda step: step.deployment.id in ids, "is no part of the cascade")
        names = ", ".join(step.deployment.id for step in trials)
        cascade = replace(kept, steps=(*trials, strong), mode=Mode.CASCADE, judge=self._panel())
        return cascade.because(f"cascade: {names} before {strong.deployment.id}")

    def _pays(self, cheap: NanoUSD, strong: NanoUSD) -> bool:
        """Whether trying first for `cheap` is worth it: the strong one is spared where the first answer is accepted."""
        if self.accepted is None:
            return cheap * self.min_price_ratio <= strong
        return cheap < self.accepted * strong

    def _strong(self, able: list[Step]) -> Step | None:
        if self.strong is not None:
            return next((step for step in able if step.deployment.id == self.strong), None)
        rated = [step for step in able if step.deployment.quality is not None]
        if rated:
            return max(rated, key=lambda step: step.deployment.quality or 0.0)
        return max(able, key=lambda step: step.expected_cost or 0, default=None)

    def _trials(self, able: list[Step], strong: Step, request: Request) -> list[Step]:
        """What is asked before the strong model; nothing where a member is missing."""
        others = [step for step in able if step.deployment.id != strong.deployment.id]
        cheap = _once(sorted(others, key=lambda step: step.expected_cost or 0))
        tried = [step for step in cheap if step.deployment.id != self.llm][: self.agree] * self.samples
        if len(tried) < self.agree:
            return []
        if self.llm is None:
            return tried
        judge = next((step for step in able if step.deployment.id == self.llm), None)
        return [*tried, _grader(judge, tried[-1], len(request.raw))] if judge is not None and tried else []

    def _panel(self) -> Panel:
        return Panel(
            agreeing=max(self.agree, self.samples),
            alike_from=self.alike_from,
            logprob_min=self.logprob_min,
            llm=self.llm is not None,
            score_min=self.score_min,
            verifier=self._verifier,
            right_min=self._right_min(),
            trial_s=None if self.trial_ms_max is None else self.trial_ms_max / 1000,
            keep_alive_s=self.keep_alive_s,
            early_chars=self.early_chars,
        )

    def _right_min(self) -> float:
        if self.verified_min is not None or self._verifier is None:
            return 1.0 if self.verified_min is None else self.verified_min
        return self._verifier.bound

    def _asks_more(self) -> bool:
        judges = (self.logprob_min, self.llm, self.verifier)
        return self.agree > 1 or self.samples > 1 or any(judge is not None for judge in judges)


def _once(steps: list[Step]) -> list[Step]:
    """Each deployment at its first place only: it may stand there at two prices."""
    first = {step.deployment.id: step for step in reversed(steps)}
    return [step for step in steps if first[step.deployment.id] is step]


def _can_be_judged(plan: Plan, request: Request) -> bool:
    """One answer, here and now, in a format whose answers can be read."""
    one = all(step.choices == 1 and not step.pieces for step in plan.steps)
    return one and request.format in FORMATS and not request.body.get("background")


def _grader(step: Step, heard: Step, asked_bytes: int) -> Step:
    """The step that grades what `heard` says: it reads the request and the answer, and says a number."""
    room = SHOWN_CHARS // CHARS_PER_TOKEN
    expected = QUESTION_TOKENS + min(heard.estimate.expected, room) + min(heard.output_expected, room)
    bound = QUESTION_TOKENS + min(SHOWN_CHARS, ESCAPED * asked_bytes) + SHOWN_CHARS  # ASCII: a token each at most
    thinks = Capability.REASONING in step.deployment.capabilities
    return replace(
        step,
        estimate=Estimate(expected, max(expected, bound)),
        output_cap=min(step.output_cap, SCORE_TOKENS),
        output_expected=1,
        reasoning_expected=0,
        cached_expected=0,
        effort="none" if thinks and step.effort is not None else step.effort,
        judging=True,
    )

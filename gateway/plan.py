"""How a request could be served: steps in order.  Policies turn a plan into a plan.  Pure.

A route's plan starts with every candidate that fits, cheapest expected cost first; its policies then run in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct, field
from msgspec.structs import force_setattr, replace

from gateway import money
from gateway.types import (
    CACHE_READ,
    INPUT,
    OUTPUT,
    REASONING,
    Deployment,
    Estimate,
    NanoUSD,
    Price,
    Request,
    Tenant,
)

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How hard a model may be asked to think, upward."""


class Talk(Struct, frozen=True):
    """Tokens that one answer of a deployment has had of late, on average."""

    visible: float
    reasoning: float = 0.0


class Step(Struct, frozen=True):
    """A deployment as it would be used for this request.

    `output_cap` is sent upstream, for each of `choices` answers, so `worst_cost` is a bound and not a guess.  A cost of
    None is unknown: the deployment, or a bucket it may bill, has no price.
    """

    deployment: Deployment
    estimate: Estimate
    output_cap: int
    output_expected: int
    at: float  # unix seconds: prices have hours
    choices: int = 1
    cache_writes: bool = False
    cached_expected: int = 0  # input tokens expected to be read from this deployment's prompt cache
    reasoning_expected: int = 0
    effort: str | None = None  # none, minimal, low, medium, high; None: as the client said
    healthy: bool = True
    service_tier: str = ""  # as the request asks for it: flex, priority, ...
    audio: bool = False  # sound or film goes in or may come out
    pieces: Mapping[str, int] = field(default_factory=dict)  # at most, of what may be billed by the piece
    provider_calls: int = 0  # of tools of the provider's own, at most
    judging: bool = False  # its answer is no answer but an opinion of those before it
    talks: Mapping[tuple[str, str], Talk] = field(default_factory=dict)  # by task and effort
    expected_cost: NanoUSD | None = None  # both follow from the rest, whatever is given
    worst_cost: NanoUSD | None = None

    def __post_init__(self) -> None:
        price = self.deployment.price
        owed = money.by_piece(self.pieces, price) if self.pieces else None
        force_setattr(self, "expected_cost", self._expected(price) if owed is None else owed)
        force_setattr(self, "worst_cost", self._worst(price) if owed is None else owed)

    def capped(self, output_cap: int) -> Step:
        """The same step with at most `output_cap` tokens out; never raises the cap."""
        if output_cap >= self.output_cap:
            return self
        visible, reasoning = within(output_cap, self.output_expected, self.reasoning_expected)
        return replace(self, output_cap=output_cap, output_expected=visible, reasoning_expected=reasoning)

    def thinking(self, effort: str) -> Step:
        """The same step asked to think this hard, with what is known of such answers."""
        visible, reasoning = self._talk("", effort)
        return replace(self, effort=effort, output_expected=visible, reasoning_expected=reasoning)

    def on(self, task: str, effort: str) -> Step:
        """The same step with what is known of its answers to such tasks with such effort; "" stands for any task."""
        visible, reasoning = self._talk(task, effort)
        if (visible, reasoning) == (self.output_expected, self.reasoning_expected):
            return self
        return replace(self, output_expected=visible, reasoning_expected=reasoning)

    def _talk(self, task: str, effort: str) -> tuple[int, int]:
        """Tokens to be seen and to be thought."""
        talk = self.talks.get((task, effort)) or self.talks.get(("", effort))
        if talk is None:
            return self.output_expected, 0 if effort == "none" else self.reasoning_expected
        return within(self.output_cap, round(talk.visible), round(talk.reasoning))

    def _expected(self, price: Price) -> NanoUSD | None:
        asked, cached, choices = self.estimate.expected, self.cached_expected, self.choices
        tokens = {INPUT: asked, OUTPUT: self.output_expected * choices}
        if cached:
            if cached > asked:
                cached = asked
            tokens[INPUT], tokens[CACHE_READ] = asked - cached, cached
        if self.reasoning_expected:
            kind = REASONING if REASONING in price.rates else OUTPUT
            tokens[kind] = tokens.get(kind, 0) + self.reasoning_expected * choices
        return money.total(tokens, price, self.at, self.service_tier)

    def _worst(self, price: Price) -> NanoUSD | None:
        return money.bound(
            price,
            self.estimate.bound,
            self.output_cap * self.choices,
            cache_writes=self.cache_writes or self.deployment.cache_writes,
            service_tier=self.service_tier,
            fees=money.called(self.provider_calls, price) if self.provider_calls else 0,
            audio=self.audio,
        )


class Dropped(Struct, frozen=True):
    """A candidate that is not in the plan, and why, in words."""

    deployment: str
    reason: str


class Mode(StrEnum):
    """What makes the next step run: an error, or an answer that was not good enough."""

    FAILOVER = "failover"
    CASCADE = "cascade"


class Said(Struct, frozen=True):
    """What one step of a cascade answered, as far as its judge may know."""

    step: Step
    text: str
    finish: str  # end, length, context_full, tools, stop_sequence, refused, paused; "": it cannot be read
    calls: tuple[tuple[str, str], ...] = ()  # of tools: name and arguments, JSON as text
    logprobs: tuple[float, ...] = ()  # of its tokens, where the provider gave any


class Verdict(Struct, frozen=True):
    """`take`: which of the answers the client gets; None: none of them yet, and `reason` says what is wrong.

    Without a reason nothing is wrong: the judge only wants to hear the next step.  With one all that is left is the
    last step, whose answer is not judged; `onward`: the next one may do.
    """

    take: int | None = None
    reason: str = ""
    onward: bool = False


class Judge(Protocol):
    """Says whether an answer is good enough.  Pure."""

    @property
    def trial_s(self) -> float | None:
        """How long after the request came the last step is asked at the latest; None: never mind."""
        ...

    @property
    def keep_alive_s(self) -> float:
        """A client that waits for a stream hears so often that it is not forgotten."""
        ...

    @property
    def early_chars(self) -> int | None:
        """A stream that is promising so far goes to the client from there on; None: judged when it is whole."""
        ...

    def asks(self, request: Request, step: Step, said: Sequence[Said]) -> Request:
        """What `step` is asked: the request itself, or a question about what has been said."""
        ...

    def verdict(self, request: Request, said: Sequence[Said]) -> Verdict:
        """On what has been said so far, one thing at least."""
        ...

    def promising(self, text: str) -> bool:
        """Whether an answer that begins so may go to the client unheard."""
        ...


class Aside(Struct, frozen=True):
    """Who answers a share of the requests as well, once the client has its answer: nobody waits for it.

    `model` and `llm` are candidates of the route, or what the tenant could ask for itself.
    """

    model: str
    share: float  # of the requests, 0 to 1
    budget: NanoUSD  # of all such answers of a route in a UTC day; no budget of a tenant pays for them
    llm: str = ""  # compares the two answers; "": they are compared as text
    is_reference: bool = True  # the other is measured by this answer; else this one by the client's

    def draws(self, request_id: str) -> bool:
        """Whether this request is one of them; the same everywhere and for good, whatever else is drawn by its id."""
        return spread(f"shadow {request_id}") < self.share


class Tokens(Struct, frozen=True):
    """In all, which is less than the sum where one step takes more and another makes more; in; and out."""

    all: int
    input: int
    output: int


class Plan(Struct, frozen=True):
    """Steps in order, with the reasons that shaped them."""

    steps: tuple[Step, ...]
    mode: Mode = Mode.FAILOVER
    judge: Judge | None = None  # of a cascade, or for declined answers
    reasons: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    baseline: Step | None = None
    degraded: bool = False  # made cheaper because a budget fills
    task: str = ""  # what kind of work it is, as a policy found; "": nobody said
    level: str = ""  # easy, medium or hard, likewise
    aside: Aside | None = None

    @property
    def worst_cost(self) -> NanoUSD | None:
        """What to set aside: the dearest step of a failover, all steps of a cascade.  None: unknown."""
        together, dearest = 0, None
        for step in self.steps:
            cost = step.worst_cost
            if cost is None:
                return None
            together += cost
            if dearest is None or cost > dearest:
                dearest = cost
        return dearest if dearest is None or self.mode is not Mode.CASCADE else together

    @property
    def worst_tokens(self) -> Tokens:
        """The most tokens that can be used: for limits on tokens."""
        together = self.mode is Mode.CASCADE
        both = ins = outs = 0
        for step in self.steps:
            went_in, came_out = step.estimate.bound, step.output_cap * step.choices
            if together:
                both, ins, outs = both + went_in + came_out, ins + went_in, outs + came_out
                continue
            both = went_in + came_out if went_in + came_out > both else both
            ins = went_in if went_in > ins else ins
            outs = came_out if came_out > outs else outs
        return Tokens(both, ins, outs)

    def frugal(self) -> Plan:
        """Only the steps that cost no more than the first, at worst: what is left when a budget is nearly full."""
        if not self.steps:
            return self
        if self.mode is Mode.CASCADE:
            first = self.steps[0].deployment.id
            alone = self.only(lambda step: step.deployment.id == first, "the budget has no room for a second opinion")
            return replace(alone, steps=alone.steps[:1], mode=Mode.FAILOVER, judge=None)
        ceiling = cost_key(self.steps[0].worst_cost)
        return self.only(lambda step: cost_key(step.worst_cost) <= ceiling, "the budget has no room for it")

    def classified(self, task: str, level: str, effort: str = "") -> Plan:
        """The same plan, known to be for such work; answers are expected to be as those to such tasks were.

        `effort`: of the request; that of a step counts more.
        """
        steps = tuple(
            step.on(task, effort if step.effort is None else step.effort) if step.talks else step for step in self.steps
        )
        return replace(self, steps=steps, task=task, level=level)

    def because(self, reason: str) -> Plan:
        """The same plan with one more reason."""
        return replace(self, reasons=(*self.reasons, reason))

    def sorted(self, key: Callable[[Step], Any]) -> Plan:
        """The same steps, ordered by `key`; equal keys keep their order."""
        return replace(self, steps=tuple(sorted(self.steps, key=key)))

    def only(self, keep: Callable[[Step], bool], reason: str) -> Plan:
        """The steps for which `keep` holds; the others are dropped for `reason`."""
        kept = tuple(step for step in self.steps if keep(step))
        gone = tuple(Dropped(step.deployment.id, reason) for step in self.steps if not keep(step))
        return replace(self, steps=kept, dropped=(*self.dropped, *gone))

    def each(self, change: Callable[[Step], Step]) -> Plan:
        """Every step changed by `change`."""
        return replace(self, steps=tuple(change(step) for step in self.steps))


class Stats(Struct, frozen=True):
    """What recent traffic says of a deployment; None where nothing is known."""

    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    error_rate: float = 0.0
    output_mean: float | None = None


class Context(Struct, frozen=True):
    """What a policy may know beside the request."""

    tenant: Tenant
    now: float
    stats: Mapping[str, Stats] = field(default_factory=dict)  # by deployment id
    fill: float = 0.0  # 0..1: the fullest `degrade` budget of the caller, as last seen


@runtime_checkable
class Policy(Protocol):
    """Narrows, reorders or reshapes a plan.  Quick (microseconds), pure, no I/O, no clock of its own.

    A policy is a frozen dataclass whose fields are its YAML options, found by entry point `tollgate.policies`.
    """

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:
        """A plan whose steps are among those of `plan`."""
        ...


def cost_key(cost: NanoUSD | None) -> tuple[bool, int]:
    """Sorts costs upward with unknown last: unknown is not zero."""
    return (cost is None, cost or 0)


def within(cap: int, visible: int, reasoning: int) -> tuple[int, int]:
    """Tokens of an answer and of its reasoning under a cap on both: the reasoning comes first."""
    if visible + reasoning <= cap:
        return visible, reasoning
    thought = min(reasoning, cap)
    return min(visible, cap - thought), thought


_EFFORT_FIELDS = frozenset({"reasoning_effort", "reasoning", "output_config", "thinking"})


def asked_effort(body: Mapping[str, Any]) -> str | None:
    """The effort as the client said it; "" where it is given in tokens, None where there is none."""
    if _EFFORT_FIELDS.isdisjoint(body):
        return None
    word = body.get("reasoning_effort")
    if word is None and isinstance(nested := body.get("reasoning"), dict):
        word = nested.get("effort")
    if word is None and isinstance(nested := body.get("output_config"), dict):
        word = nested.get("effort")
    if isinstance(word, str):
        return word
    thinking = body.get("thinking")
    return "" if isinstance(thinking, dict) and thinking.get("type") != "disabled" else None


IDENTITIES = ("request", "conversation", "user", "task", "key", "tenant")
"""What requests may have in common, by which policies keep them together."""


def identity(request: Request, by: str) -> str:
    """Who this is, in the sense of `by`; a conversation is known by its beginning, and stands in for the unsaid."""
    named = {"request": request.id, "user": request.user, "task": request.task, "key": request.key.id}
    named["tenant"] = request.key.tenant
    return named.get(by) or f"{request.key.id} {_beginning(request.body)}"


def spread(text: str) -> float:
    """A number from 0 to below 1 that is the same for the same text, everywhere and for good, and evenly spread."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=6).digest()) / (1 << 48)


def _beginning(body: Mapping[str, Any]) -> str:
    turns = body.get("messages", body.get("input"))
    if not isinstance(turns, list):
        return str(turns)
    return str(next((turn for turn in turns if isinstance(turn, Mapping) and turn.get("role") == "user"), ""))

"""One request on its way: what has been set aside, tried, sent and learned.  Turned into a Record when it is over."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway import money
from gateway.dialects.base import Decoder
from gateway.draft import draft
from gateway.errors import GatewayError, UpstreamBroken, UpstreamTimeout
from gateway.ledger.base import NOTHING, Balance, Line, Reservation, Spent, share_of
from gateway.plan import Mode, Plan, Said, Step
from gateway.savings import savings
from gateway.tokens import Content, Counter
from gateway.trial import Trial, with_waste
from gateway.types import (
    COST,
    DENY,
    OUTPUT_BUCKETS,
    STEP_KINDS,
    Bucket,
    Cost,
    Deployment,
    NanoUSD,
    Outcome,
    Record,
    Request,
    Route,
    Tenant,
    Usage,
)

if TYPE_CHECKING:
    from gateway.resuming import Begun

TOKENS_PER_SECOND = 60.0
"""Of a deployment nobody has measured: what an answer that was hung up on may have grown to by then."""
COUNTED_CHARS_MAX = 200_000
"""Of an answer that is thrown away: a body without end must not hold up everyone else while it is counted."""


@dataclass(slots=True, eq=False)
class Exchange:
    """Mutable, owned by one `Pipeline.run`.  Times are `loop.time()` seconds but for `request.received`."""

    request: Request
    tenant: Tenant
    route: Route | None
    plan: Plan
    content: Content
    began: float
    until: float = math.inf  # when it has to be over
    held: bool = False  # whether the ledger knows of it
    reservation: Reservation = field(init=False)
    balances: list[Balance] = field(default_factory=list)
    step: Step = field(init=False)
    decoder: Decoder | None = None
    attempts: int = 0
    retries: int = 0
    reached: bool = False  # whether any provider may have seen it
    called: float | None = None  # the last call to a provider began
    answered: float | None = None  # and ended
    first_byte: float | None = None
    finished: bool = False  # the whole answer went through
    error: GatewayError | None = None
    status: int = 0
    extras: list[Reservation] = field(default_factory=list)  # set aside later, beside the hold
    wasted: NanoUSD = 0  # attempts that gave nothing and may be billed all the same
    spilt: list[tuple[Step, NanoUSD]] = field(default_factory=list)  # what of it each failed attempt wasted
    asked: Request = field(init=False)  # what the step is asked: the request, but for judges
    opened: bool = False  # the client has seen the headers, and maybe nothing else
    trials: list[Trial] = field(default_factory=list)  # answers of a cascade that the client has not got
    escalated: bool = False  # its judge has found them wanting
    resumed: Begun | None = None  # what the client has of an answer that broke off
    awaited: bool = False  # the current attempt has been sent, and nothing has come back that ends it
    _costs: dict[str, tuple[Usage, Cost]] = field(default_factory=dict)  # by deployment

    def __post_init__(self) -> None:
        self.step = self.plan.steps[0]
        self.asked = self.request

    def reserve(self, lines: tuple[Line, ...], hold_s: float) -> Reservation:
        """The reservation for the whole plan, with the record that stands if we die before settling."""
        self.reservation = Reservation(self.request.id, self.tenant.id, lines, draft(self), hold_s)
        return self.reservation

    def turn_to(self, step: Step) -> None:
        """The next attempt is on this step."""
        self._leave()
        self.step = step
        self.asked = self.resumed.asks(self.request) if self.resumed else self.request
        self.decoder = None
        self.error = None
        self.attempts += 1
        self.awaited = False

    def sent(self) -> None:
        """The request goes out: from now on something may be owed."""
        self.reached = self.awaited = True

    def repeats(self) -> None:
        """What was sent has failed, and the same is asked of the same deployment once more."""
        self.retries += 1
        self.awaited = False

    def failed(self, error: GatewayError, counter: Counter) -> None:
        """The current attempt gave nothing.  A provider that went silent or broke off may charge what it worked."""
        self.error = error
        if not self.awaited:  # nothing was sent, or that had failed already
            return
        worked = self.first_byte is None and self._worked(error)
        wasted = (self.bill(self._counted(None, self._generated(counter))).total or 0) if worked else 0
        self.wasted += wasted
        self.spilt.append((self.step, wasted))

    def _leave(self) -> None:
        """The failed attempt is not the last: what it reported to have used, and nobody was sent, is wasted."""
        usage = None if self.decoder is None else self.decoder.meter.usage
        if usage is None or self.error is None or self.first_byte is not None:
            return
        cost = self.bill(usage).total
        told = (self.step.worst_cost or 0) if cost is None else cost
        self.wasted += told
        self.spilt[-1] = self.step, told
        self.decoder = None

    def _worked(self, error: GatewayError) -> bool:
        """Whether a provider may have worked although nothing of it can be used, and it did not say what it charges."""
        if self.decoder is None:
            return isinstance(error, UpstreamTimeout)
        return isinstance(error, UpstreamTimeout | UpstreamBroken) and self.decoder.meter.usage is None

    def _generated(self, counter: Counter) -> int:
        """Tokens of what came of an answer that is thrown away; counting them has a bound, as the answer had."""
        if self.decoder is None:
            return 0
        text = self.decoder.generated()[:COUNTED_CHARS_MAX]
        return min(counter.count_text(text, self.step.deployment), self.step.output_cap * self.step.choices)

    def shelve(self, said: Said | None, data: bytes, generated: int, now: float) -> None:
        """An answer that the client does not get, or not yet.  None: it is no use.  `generated`: see `usage`."""
        usage = self.usage(generated, now) or Usage()
        self.trials.append(Trial(self.step, self.decoder, said, data, usage, self.bill(usage)))
        self.unsend()

    def unsend(self) -> None:
        """What was said was said to nobody."""
        self.first_byte, self.finished, self.status = None, False, 0

    def take(self, trial: Trial) -> None:
        """An answer that was tried is the one the client gets."""
        self._leave()
        self.trials.remove(trial)
        self.step, self.decoder, self.error = trial.step, trial.decoder, None

    @property
    def overhead(self) -> NanoUSD:
        """What was paid for and is of no use: judges, answers thrown away, attempts that gave nothing."""
        return self.wasted + sum(trial.amount for trial in self.trials) if self.trials else self.wasted

    def holds(self) -> list[Reservation]:
        """Everything that is set aside."""
        return [self.reservation, *self.extras]

    def replan(self, plan: Plan) -> None:
        """Another plan, before anything was tried."""
        self.plan, self.step = plan, plan.steps[0]

    def shortage(self, step: Step, hold_s: float) -> Reservation | None:
        """What to set aside beside the hold so that it bounds one more attempt, on `step`, after what was wasted.

        None: the hold bounds it already.
        """
        self._leave()
        if not (self.wasted or self.trials) or self.plan.mode is Mode.CASCADE:  # whose hold is the sum of its steps
            return None
        cost = step.worst_cost or 0
        spent = Spent(self.overhead + cost, shares=self._used(step.deployment, Spent(cost, 0)))
        lines = tuple(
            Line(line.account, line.limit, missing)
            for index, line in enumerate(self.reservation.lines)
            if line.limit.unit is COST
            and line.limit.action is DENY
            and (missing := spent.of(COST, share_of(line.account)) - line.amount - self._added(index)) > 0
        )
        if not lines:
            return None
        return self.reservation.beside(f"{self.request.id}.{self.attempts}", lines, hold_s)

    def _added(self, index: int) -> int:
        """What has been set aside later for a line of the hold."""
        line = self.reservation.lines[index]
        return sum(
            more.amount
            for extra in self.extras
            for more in extra.lines
            if (more.account, more.limit) == (line.account, line.limit)
        )

    def _used(self, last: Deployment, own: Spent) -> dict[str, Spent]:
        """By deployment and by provider: what failed attempts wasted there, and what the last one used."""
        found: dict[str, Spent] = {}
        tried = [(trial.step.deployment, trial.spent) for trial in self.trials]
        spilt = [(step.deployment, Spent(wasted)) for step, wasted in self.spilt]
        for deployment, part in [*tried, *spilt, (last, own)]:
            for name in (f"deployment {deployment.id}", f"provider {deployment.provider.id}"):
                found[name] = found.get(name, NOTHING) + part
        return found

    def _shares(self, last: Spent) -> dict[str, Spent] | None:
        """What each deployment and provider served; None where no account asks."""
        if STEP_KINDS.isdisjoint([line.account.kind for line in self.reservation.lines]):
            return None
        counted = bool(self.spilt) and self.spilt[-1][0] is self.step  # the last attempt failed: its request is there
        own = Spent(last.cost, 0 if counted else last.requests, last.input_tokens, last.output_tokens)
        return self._used(self.step.deployment, own)

    def bill(self, usage: Usage) -> Cost:
        """Prices usage on the deployment in use, at the hour of the request; as its provider does where that holds."""
        deployment = self.step.deployment
        calculated = self._priced(usage, deployment)
        if usage.reported_cost is None or not deployment.as_reported:
            return calculated
        return money.charged(calculated, usage.reported_cost)

    def _priced(self, usage: Usage, deployment: Deployment) -> Cost:
        """Headers, metrics and the record ask for the same costs."""
        known = self._costs.get(deployment.id)
        if known is None or known[0] is not usage:
            cost = money.cost(usage, deployment.price, self.request.received)
            known = self._costs[deployment.id] = usage, cost
        return known[1]

    def uncounted(self) -> str:
        """What was generated, where its provider has not said, or not to the end, how many tokens it is."""
        decoder = self.decoder
        if decoder is None or self._nothing_sent() or (decoder.meter.usage is not None and decoder.meter.complete):
            return ""
        return decoder.generated()

    async def tokens_generated(self, counter: Counter) -> int:
        """Tokens of what is `uncounted`; where that is long they are counted off the loop, as a prompt's are."""
        text = self.uncounted()
        return await counter.count_long_text(text, self.step.deployment) if text else 0

    def usage(self, generated: int, now: float) -> Usage | None:
        """What the provider reported; else with our own count of what is `uncounted`; None where nothing was made."""
        if self.decoder is None:
            return self._guess(now) if self.awaited and self.error is None else None
        meter = self.decoder.meter
        if meter.usage is not None and (meter.complete or self._nothing_sent()):
            return meter.usage
        if self._nothing_sent():
            return None
        if not generated and not meter.complete and meter.usage is None:
            return self._guess(now)
        return self._counted(meter.usage, generated)

    def _nothing_sent(self) -> bool:
        """The provider failed before the client saw a byte: what it does not report, it does not charge."""
        return self.error is not None and self.first_byte is None

    def _counted(self, seen: Usage | None, generated: int) -> Usage:
        """Input as the provider said, else as estimated; output as the larger of what it said and what we counted."""
        if seen is None:
            known = {Bucket.INPUT: self.step.estimate.expected}
            return Usage({**known, Bucket.OUTPUT: generated}, exact=False)
        tokens = dict(seen.tokens)
        rest = sum(n for bucket, n in tokens.items() if bucket in OUTPUT_BUCKETS and bucket is not Bucket.OUTPUT)
        tokens[Bucket.OUTPUT] = max(tokens.get(Bucket.OUTPUT, 0), generated - rest)
        return replace(seen, tokens=tokens, exact=False, reported_cost=None)  # what it said was not its last word

    def _guess(self, now: float) -> Usage:
        """An answer nobody read: a whole reply grew at the deployment's speed until then, a stream had not begun."""
        speed = 0.0 if self.request.stream else self.step.deployment.tokens_per_second or TOKENS_PER_SECOND
        grown = min(self.step.output_cap * self.step.choices, int((now - self.began) * speed))
        return Usage({Bucket.INPUT: self.step.estimate.expected, Bucket.OUTPUT: grown}, exact=False)

    def upstream_s(self, now: float) -> float:
        """How long the last attempt waited for its provider."""
        if self.called is None:
            return 0.0
        return (now if self.answered is None else self.answered) - self.called

    def outcome(self) -> Outcome:
        """How it ended."""
        if self.finished:
            return Outcome.OK
        if self.error is None:
            return Outcome.CLIENT_GONE
        return Outcome.BROKEN_STREAM if self.first_byte is not None else Outcome.UPSTREAM_ERROR

    def baseline_cost(self, usage: Usage) -> NanoUSD | None:
        """What the route's reference model would have cost for the same tokens."""
        baseline = self.plan.baseline
        if self.request.shadow_of:
            return 0  # without routes nobody would have asked
        if baseline is None:
            return None
        if baseline.deployment is self.step.deployment:
            return self.bill(usage).total
        return self._priced(usage, baseline.deployment).total

    def close(self, usage: Usage | None, now: float) -> tuple[Spent, Record]:
        """What is owed, and what happened.  An unknown cost is settled as all that was set aside: never as zero."""
        used = usage or Usage()
        cost = self.bill(used) if usage else Cost(0)
        overhead = self.overhead
        if cost.total is None:
            own, owed = self.step.worst_cost or 0, self.plan.worst_cost or 0
        else:
            own, owed = cost.total, cost.total + overhead
        last = every = Spent(own, 1, used.input_tokens, used.output_tokens)
        known, estimated = cost.total is not None, not used.exact or self.wasted > 0
        for trial in self.trials:
            every += trial.spent
            known = known and trial.cost.total is not None
            estimated = estimated or not trial.usage.exact
        record = replace(
            self._told(now),
            tokens={str(bucket): count for bucket, count in used.tokens.items()},
            fees=used.fees,
            estimated=estimated,
            cost=owed if known else None,
            components=with_waste(cost, self.wasted, self.trials),
            reported_cost=used.reported_cost,
            calculated_cost=self._priced(used, self.step.deployment).total if usage else None,
            service_tier=used.service_tier,
            baseline_cost=self.baseline_cost(used) if usage else None,
            savings=savings(self.request, self.plan, self.step, used, cost.total, self._priced) if usage else {},
            overhead_cost=owed if self.request.shadow_of else overhead,
            tokens_estimated=self.step.estimate.expected,
            flags=used.flags,
        )
        return Spent(owed, 1, every.input_tokens, every.output_tokens, self._shares(last)), record

    def _told(self, now: float) -> Record:
        """What happened, but for what was used: the draft with what it could not know."""
        before, deployment = self.reservation.draft, self.step.deployment
        first = self.resumed.first_byte if self.resumed else self.first_byte
        reserved = before.reserved
        for extra in self.extras:
            reserved += extra.draft.reserved
        return replace(
            before,
            version=1,
            deployment=deployment.id,
            provider=deployment.provider.id,
            upstream_model=deployment.upstream_model,
            outcome=self.outcome(),
            response_model=self.decoder.meter.response_model if self.decoder else "",
            finish_reason=self.decoder.meter.finish_reason if self.decoder else "",
            reserved=reserved,
            status=self.status,
            error=self.error.code if self.error else "",
            attempts=self.attempts + self.retries,
            latency_ms=round((now - self.began) * 1000),
            first_token_ms=round((first - self.began) * 1000) if first is not None else 0,
            reasons="; ".join(self.plan.reasons),
        )

    def remaining(self, cost: NanoUSD) -> NanoUSD | None:
        """What the tightest hard budget has left once `cost` is settled; None without one."""
        least: NanoUSD | None = None
        for balance, line in zip(self.balances, self.reservation.lines, strict=False):
            limit = balance.limit
            if limit.unit is COST and limit.action is DENY:
                left = limit.amount - balance.spent - balance.reserved + line.amount - cost
                if least is None or left < least:
                    least = left
        return least if least is None or least > 0 else 0

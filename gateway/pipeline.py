"""The path of one request.  Read this first.

    count -> plan -> reserve -> call -> relay -> meter -> settle -> record

A coroutine that sends: when a client leaves, `finally` runs at once and inside out, and what was generated is paid for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway import accounts, cascade, logs, resuming
from gateway.admission import Gates
from gateway.background import Background
from gateway.credentials.keyring import Keyring
from gateway.dialects.base import Decoder, Dialect
from gateway.dialects.retry_after import quotas
from gateway.doctor.watch import Doctor
from gateway.elsewhere import Elsewhere
from gateway.entrance import Entrance, first_byte_s, patient, until
from gateway.errors import (
    BudgetExceeded,
    GatewayError,
    InternalError,
    LedgerUnavailable,
    LimitReached,
    Overloaded,
    UpstreamFailure,
    UpstreamTimeout,
)
from gateway.exchange import Exchange
from gateway.fills import Fills
from gateway.health import Condition, Health
from gateway.learning.lessons import Lessons
from gateway.ledger.base import Ledger
from gateway.ledger.keeper import Keeper
from gateway.metrics import Metrics
from gateway.plan import Step
from gateway.planner import Planner
from gateway.recorder import Recorder
from gateway.reply_headers import reply_headers
from gateway.room import Room
from gateway.settlements import Settlements
from gateway.shadows.beside import Shadows
from gateway.tokens import Counter
from gateway.transport.base import Answer
from gateway.transport.deadline import Deadline
from gateway.types import Limit, Outcome, Record, Request, Tenant, Usage
from gateway.upstream import WAIT_MAX_ELSEWHERE_S, WAIT_MAX_S, Terms, Upstream


class Send(Protocol):
    """Where the answer goes."""

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The status line and headers."""
        ...

    def chunk(self, data: bytes) -> Awaitable[None]:
        """Some of the body; waits while the client is slow."""
        ...

    async def end(self, data: bytes) -> None:
        """The last of the body."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What every version of the settings shares."""

    ledger: Ledger
    credentials: Keyring
    upstream: Upstream
    counter: Counter
    health: Health
    settlements: Settlements
    recorder: Recorder
    metrics: Metrics
    shadows: Shadows
    doctor: Doctor
    lessons: Lessons
    fills: Fills = field(default_factory=Fills)
    room: Room = field(default_factory=Room)
    gates: Gates = field(default_factory=lambda: Gates(time.monotonic))
    background: Background = field(default_factory=Background)


class Pipeline:
    """Serves requests under one version of the settings."""

    def __init__(
        self,
        parts: Parts,
        planner: Planner,
        dialects: Mapping[str, Dialect],
        limits: Iterable[Limit] = (),
        hold_s: float = 120.0,
    ) -> None:
        self.parts = parts
        self.planner = planner
        self.dialects = dialects
        self.limits = tuple(limits)  # of everyone
        self.hold_s = hold_s
        self.now = asyncio.get_running_loop().time
        self.keeper = Keeper(parts.ledger, hold_s)
        self.entrance = Entrance(parts.health, parts.gates, parts.credentials, self.now)

    async def run(self, request: Request, tenant: Tenant, send: Send) -> Outcome:
        """Serves one request from the first count to the last record.

        How it ended.  Raises a GatewayError if nothing was sent yet; afterwards the client is told inside the stream.
        """
        exchange = await self.planned(request, tenant)
        ear = self.parts.shadows.ear(exchange, send)
        await self.carried(exchange, ear or send)
        self.parts.lessons.keep(exchange)
        if ear is not None:
            self.parts.shadows.repeat(ear, exchange, self)
        return exchange.outcome()

    async def planned(self, request: Request, tenant: Tenant) -> Exchange:
        """What is to be done for a request, before anything is set aside."""
        content = await self.parts.counter.content(request)
        fill = self.parts.fills.fullest(request, tenant, self.limits)
        share = 0.0 if fill is None else fill.share
        route, plan = self.planner.plan(request, tenant, content, request.received, share)
        if plan.degraded and fill is not None:
            self.parts.metrics.degraded(tenant.id, str(fill.account), str(fill.limit.window))
        self.entrance.check(plan.steps, tenant)
        exchange = Exchange(request, tenant, route, plan, content, self.now())
        exchange.until = until(request, route, exchange.began)
        return exchange

    async def carried(self, exchange: Exchange, send: Send) -> None:
        """The same, done: reserved, served, settled."""
        await self.reserve(exchange)
        self.keeper.keep(exchange)
        try:
            await self.serve(exchange, send)
        finally:
            self.keeper.leave(exchange)
            await self.settle(exchange)

    async def reserve(self, exchange: Exchange) -> None:
        """Sets aside the most the plan can cost, in every account it touches, or raises why not.

        An account too full for some steps is asked again without them before anyone is refused.
        """
        while True:
            try:
                return await self.hold(exchange)
            except LimitReached as refused:
                rest = accounts.without(exchange.plan, refused.account)
                if len(rest.steps) == len(exchange.plan.steps) and isinstance(refused, BudgetExceeded):
                    rest = exchange.plan.frugal()
                if not 0 < len(rest.steps) < len(exchange.plan.steps):
                    raise
                exchange.replan(rest)

    async def hold(self, exchange: Exchange) -> None:
        """One reservation.  Without a ledger those pass who have nothing to cap, or may by their settings."""
        lines = accounts.lines(exchange.request, exchange.tenant, self.limits, exchange.plan)
        reservation = exchange.reserve(lines, self.hold_s)
        try:
            exchange.balances = await self.parts.ledger.reserve(reservation)
            exchange.held = True
            self.parts.settlements.opened(reservation)
            self.parts.fills.see(exchange.balances)
        except LedgerUnavailable:
            if accounts.refuses_without_ledger(lines, exchange.tenant):
                raise

    async def serve(self, exchange: Exchange, send: Send) -> None:
        """Tries the steps in order until one answers.  Once the client has seen a byte there is no other step.

        In a cascade its judge must think the answer good enough.
        """
        steps = exchange.plan.steps
        failure: GatewayError | None = None
        elsewhere = Elsewhere(exchange.route, exchange.request, exchange.tenant)
        send = resuming.kept(exchange, send)
        for planned in steps:
            step = planned if exchange.resumed is None else exchange.resumed.rest(planned)
            if exchange.attempts and not elsewhere.worth(step, exchange.overhead):
                continue
            if not self.entrance.in_service(step) or not await self.covered(exchange, step):
                continue
            try:
                place = await self.entrance.enter(step, exchange.tenant, exchange.until, last=planned is steps[-1])
            except Overloaded as full:
                failure = full
                continue
            exchange.turn_to(step)
            try:
                with place:
                    if exchange.plan.judge is None or not cascade.judged(exchange, step):
                        return await self.attempt(exchange, step, send)
                    if await cascade.tried(exchange, step, send, self):
                        return None
            except GatewayError as error:
                failure = error
                exchange.failed(error, self.parts.counter)
                if await resuming.ended(exchange, error, send, self, last=planned is steps[-1]):
                    return None
                self.parts.metrics.failed_over(step.deployment.id, error.code)
                if not elsewhere.may_follow(error, step):
                    break
        return await self.give_up(exchange, failure or self.entrance.nobody(steps), send)

    async def give_up(self, exchange: Exchange, failure: GatewayError, send: Send) -> None:
        """No step is left: the best there was, or what went wrong; inside the stream where that has begun."""
        if await cascade.settled_for(exchange, send, self):
            return
        exchange.status = failure.status
        if not exchange.opened:
            raise failure
        await send.end(self.decoder(exchange).cut(failure))

    def decoder(self, exchange: Exchange) -> Decoder:
        """One that has read nothing yet."""
        dialect = self.dialects[exchange.step.deployment.provider.dialect]
        return dialect.decoder(exchange.request, exchange.step, exchange.bill)

    async def covered(self, exchange: Exchange, step: Step) -> bool:
        """Whether what is set aside bounds one more attempt; what failed ones may cost is set aside beside it."""
        if exchange.plan.judge is not None and cascade.skipped(exchange, step):
            return False
        if not exchange.attempts:
            return True
        extra = exchange.shortage(step, self.hold_s)
        if extra is None or not exchange.held:
            return True
        try:
            await self.parts.ledger.reserve(extra)
        except (LimitReached, LedgerUnavailable):
            return False
        self.parts.settlements.opened(extra)
        exchange.extras.append(extra)
        return True

    async def attempt(self, exchange: Exchange, step: Step, send: Send) -> None:
        """One step: call the provider and relay its answer, within its deadlines."""
        condition = self.parts.health.of(step.deployment.id)
        began = self.now()
        try:
            await self.relay(exchange, step, condition, send, began)
        except TimeoutError as error:
            if patient(exchange.request, step, self.now() - began):
                condition.failed(self.now())
            raise UpstreamTimeout(f"Deployment {step.deployment.id} did not answer in time.") from error
        except UpstreamFailure as failure:
            condition.failed(self.now(), failure.retry_after_s)
            raise
        except GatewayError:
            condition.circuit.answered(self.now())  # it refused the request, and is well
            raise
        except Exception as bug:
            exchange.error = InternalError(str(bug))  # for the record; whoever asked us logs the bug itself
            raise

    async def relay(self, exchange: Exchange, step: Step, condition: Condition, send: Send, began: float) -> None:
        """Bytes from the provider to the client, metered on the way.  A whole reply is a stream of one chunk."""
        request, provider = exchange.asked, step.deployment.provider
        times = step.deployment.timeouts or provider.timeouts
        dialect = self.dialects[provider.dialect]
        call = dialect.encode(request, step, exchange.tenant)
        last = min(began + times.total_s, exchange.until)
        first = min(last, began + first_byte_s(request, times.first_byte_s)) if request.stream else last

        def repeated(reason: str) -> None:
            exchange.repeats()
            self.parts.metrics.retried(step.deployment.id, reason)

        def may_retry(error: GatewayError) -> bool:
            if not condition.retries(self.now()):
                return False
            repeated(error.code)
            return True

        wait_max_s = WAIT_MAX_S if step is exchange.plan.steps[-1] else WAIT_MAX_ELSEWHERE_S
        tokens = step.estimate.expected + step.output_expected * step.choices
        terms = Terms(first, wait_max_s, may_retry, self.now, exchange.sent, repeated, tokens)
        exchange.called, exchange.answered = self.now(), None
        with Deadline(first) as deadline:
            async with await self.parts.upstream.open(call, provider, dialect, terms) as answer:
                decoder = dialect.decoder(request, step, exchange.bill)
                if exchange.resumed is not None:
                    decoder = exchange.resumed.continued(decoder, exchange)
                exchange.decoder = decoder
                decoder.meter.media_type = answer.header("content-type")
                self.look(condition, answer, request)
                async for chunk in answer.chunks():
                    if request.stream:
                        deadline.move(last)  # a slow client is not a silent provider
                    if out := decoder.feed(chunk):
                        if exchange.first_byte is None:
                            await self.begin(exchange, send)
                        await send.chunk(out)
                    if request.stream:
                        deadline.move(min(last, self.now() + times.idle_s))
                out = decoder.finish()
        exchange.answered = self.now()
        await self.end(exchange, out, send)
        exchange.finished = True
        self.learn(exchange, began)

    def look(self, condition: Condition, answer: Answer, request: Request) -> None:
        """What a reply tells of its provider's own limits."""
        now = self.now()
        if condition.looks(now):
            condition.told(now, quotas(answer.headers, request.received))

    async def begin(self, exchange: Exchange, send: Send, length: int | None = None) -> None:
        """The status and headers, before the first byte; with the `length` of a body that is all here."""
        exchange.first_byte = self.now()
        exchange.status = 200
        if not exchange.opened:
            headers = reply_headers(exchange)
            if length is not None:
                headers.append((b"content-length", b"%d" % length))
            await send.start(200, headers)

    async def end(self, exchange: Exchange, data: bytes, send: Send) -> None:
        """The last of the answer, which may be all of it."""
        if exchange.first_byte is None:
            await self.begin(exchange, send, len(data))
        await send.end(data)

    def learn(self, exchange: Exchange, began: float) -> None:
        """A complete answer teaches latency, speed and the true count."""
        now, first, step = self.now(), exchange.first_byte or began, exchange.step
        usage = exchange.decoder.meter.usage if exchange.decoder else None
        request, deployment, health = exchange.request, step.deployment, self.parts.health
        tokens, stream = usage.output_tokens if usage else 0, request.stream
        speed_s = now - (first if stream else began)
        health.of(deployment.id).succeeded(now, (first - began) * 1000, tokens, speed_s, stream=stream)
        if usage is not None and usage.exact and not step.judging:
            content, task = exchange.content, exchange.plan.task
            if exchange.resumed is None:
                self.parts.counter.learn(deployment, content, usage.input_tokens)
            self.parts.doctor.see(request, exchange.route, deployment, usage, health.habits)
            health.habits.learn(request, deployment, usage, step.effort, task, content.prefixes)

    async def settle(self, exchange: Exchange) -> None:
        """What was used is booked, once; what reached no provider is freed."""
        parts = self.parts
        if not exchange.reached:
            if exchange.held:
                await parts.settlements.release(exchange.reservation)
            return
        if exchange.error is not None:
            exchange.error.recorded = True
        meter = exchange.decoder.meter if exchange.decoder else None
        if meter is not None and meter.pending and exchange.held:
            parts.background.spawn(self.follow(exchange))
        else:
            await self.book(exchange, exchange.usage(await self.generated(exchange), self.now()))

    async def generated(self, exchange: Exchange) -> int:
        """Tokens that a settlement has to count itself: whoever cancels it gets it all the same."""
        counter = self.parts.counter
        try:
            return await exchange.tokens_generated(counter)
        except asyncio.CancelledError:
            return counter.count_text(exchange.uncounted(), exchange.step.deployment)

    async def follow(self, exchange: Exchange) -> None:
        """An answer that is made in the background is settled when it is there; its hold lasts until then."""
        dialect = self.dialects[exchange.step.deployment.provider.dialect]
        async with self.parts.background.kept(exchange):
            self.keeper.keep(exchange)
            try:
                usage = await self.parts.background.made(exchange, self.parts, dialect)
            finally:
                self.keeper.leave(exchange)
            exchange.finished = exchange.error is None
            await self.book(exchange, usage)

    async def book(self, exchange: Exchange, usage: Usage | None) -> Record:
        """One settlement and one record."""
        parts, now = self.parts, self.now()
        spent, record = exchange.close(usage, now)
        upstream_s = exchange.upstream_s(now)
        parts.metrics.observe(record, now - exchange.began - upstream_s, upstream_s)
        if exchange.held:
            await parts.settlements.settle(exchange.reservation, spent, record)
            for extra in exchange.extras:
                await parts.settlements.release(extra)
        else:
            parts.recorder.spool(record)
        logs.finished(record)
        return record

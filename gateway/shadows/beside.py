"""When the other plan is asked: once the client has its answer, beside the requests, few at once, in spare places.

What is asked goes the way of every request, with a hold, a settlement and a record of its own, in the name of a tenant
that belongs to the route; so it can use up no budget but its own, and those that limit everyone together.  Of the two
answers nothing is kept but how much they agree.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from gateway.answers.grading import grade, question
from gateway.errors import BudgetExceeded, GatewayError, LimitReached, Overloaded
from gateway.metrics import Metrics
from gateway.plan import Aside, Said
from gateway.shadows.compared import Compared, Kind, comparable, compared
from gateway.shadows.ear import Ear
from gateway.shadows.payer import payer_of
from gateway.shadows.repeated import addressed, repeatable, repeated
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.outcomes import REQUEST, SHADOW, Turnout
from gateway.types import Outcome, Request, Route, Tenant

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.pipeline import Pipeline, Send

log = structlog.get_logger()

AT_ONCE = 4
WAITING_MAX = 64
"""With so many under way and waiting the next is left out."""
GRADE_TOKENS = 512
"""A judge that thinks first needs some."""

Note = Callable[[Turnout], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Pair:
    """A request that was answered, and who is to answer it as well."""

    exchange: Exchange
    route: Route
    aside: Aside
    ear: Ear
    pipeline: Pipeline
    payer: Tenant


class Shadows:
    """One per process.  `note` keeps what was found.  `clock` gives unix seconds."""

    def __init__(self, metrics: Metrics, note: Note, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._note = note
        self._clock = clock
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def ear(self, exchange: Exchange, send: Send) -> Ear | None:
        """Where to send the answer so that it can be compared; None, nearly always: it will not be."""
        aside, request = exchange.plan.aside, exchange.request
        if aside is None or exchange.route is None or not aside.draws(request.id):
            return None
        if not repeatable(request):
            self._metrics.shadowed(exchange.route.id, "unsuitable")
            return None
        return Ear(send)

    def repeat(self, ear: Ear, exchange: Exchange, pipeline: Pipeline) -> None:
        """Has another plan answer as well, later; costs the caller nothing and never raises."""
        aside, route = exchange.plan.aside, exchange.route
        if aside is None or route is None or exchange.outcome() is not Outcome.OK:
            return
        if why := self._why_not(exchange, aside, ear):
            self._metrics.shadowed(route.id, why)
            return
        tenant = exchange.tenant
        payer = payer_of(route.id, aside)
        payer = replace(payer, models=tenant.models, tiers=tenant.tiers, regions=tenant.regions)
        pair = Pair(exchange, route, aside, ear, pipeline, payer)
        task = asyncio.get_running_loop().create_task(self._answered(pair), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, within_s: float = 0.0) -> None:
        """Asks nothing any more; what is not done by then is given up, and paid for as far as it went."""
        self._stopped = True
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _why_not(self, exchange: Exchange, aside: Aside, ear: Ear) -> str:
        if self._stopped:
            return "given_up"
        if len(self._tasks) >= WAITING_MAX:
            return "crowded"
        if exchange.step.deployment.id == aside.model:
            return "same"
        return "" if ear.whole else "unsuitable"

    async def _answered(self, pair: Pair) -> None:
        result = "given_up"
        try:
            async with self._places:
                result = await self._result(pair)
        except Exception:
            log.exception("bug", request_id=pair.exchange.request.id, what="shadow")
            result = "failed"
        finally:
            self._metrics.shadowed(pair.route.id, result)

    async def _result(self, pair: Pair) -> str:
        try:
            return await self._compare(pair)
        except BudgetExceeded:
            return "over_budget"
        except (LimitReached, Overloaded):
            return "crowded"
        except GatewayError as error:
            log.info("no shadow", request_id=pair.exchange.request.id, route=pair.route.id, error=error.code)
            return "failed"

    async def _compare(self, pair: Pair) -> str:
        exchange = pair.exchange
        request = repeated(exchange.request, pair.route, pair.aside.model, pair.payer, self._clock())
        other = await said(request, pair)
        served = _read(exchange.request, exchange, pair.ear)
        if other is None or not comparable(served, other):
            return "failed" if other is None else "incomparable"
        found = await _judged(request, served, other, pair) if pair.aside.llm else compared(served, other)
        if found is None:
            return "incomparable"
        names = served.step.deployment.id, other.step.deployment.id
        self._metrics.compared(pair.route.id, *names, found.kind, found.agreement)
        measured = exchange.request.id if pair.aside.is_reference else request.id
        try:
            await self._note(Turnout(REQUEST, measured, SHADOW + found.kind, self._clock(), score=found.agreement))
        except DatabaseUnavailable:
            return "unstored"
        return "compared"


async def said(request: Request, pair: Pair) -> Said | None:
    """What is answered to the request, on the path of all requests; None: nothing, or not all of it.

    Raises a GatewayError.
    """
    ear = Ear()
    exchange = await pair.pipeline.planned(request, pair.payer)
    exchange.route = pair.route
    await pair.pipeline.carried(exchange, ear)
    if exchange.outcome() is not Outcome.OK or not ear.whole:
        return None
    return _read(request, exchange, ear)


async def _judged(request: Request, served: Said, other: Said, pair: Pair) -> Compared | None:
    """What a model makes of one beside the other; None: nothing it can be understood by."""
    answer, reference = (served, other) if pair.aside.is_reference else (other, served)
    asked = question(request, answer, reference, max_completion_tokens=GRADE_TOKENS)
    asked = addressed(replace(asked, id=f"{request.shadow_of}.grade"), pair.route, pair.aside.llm)
    reply = await said(asked, pair)
    agreement = grade(reply.text) if reply is not None else None
    return None if agreement is None else Compared(agreement, Kind.JUDGE)


def _read(request: Request, exchange: Exchange, ear: Ear) -> Said:
    from gateway.cascade import read  # noqa: PLC0415 - it imports the exchange, which the pipeline's parts come before

    return read(request, exchange.step, bytes(ear.data))

"""What settling an answer takes that a provider is still making, kept beside the gateway that follows it.  Pure."""

from __future__ import annotations

import msgspec

from gateway.exchange import Exchange
from gateway.jobs.packing import pack
from gateway.ledger.base import Reservation, Spent
from gateway.sql.jobs import Job
from gateway.types import Price, Record

KIND = "answer"


class Unfinished(msgspec.Struct):
    """What settling an answer takes.  `spent` and `record` tell of everything but the answer itself."""

    upstream: str  # its id at the provider
    held: Reservation
    extras: list[Reservation]
    record: Record
    spent: Spent
    deployment: str
    price: Price
    baseline: Price | None
    expected: int  # input tokens
    worst: int
    misses: int = 0


def unfinished(exchange: Exchange, now: float) -> Unfinished:
    """Of a request whose answer is being made."""
    spent, record = exchange.close(None, now)
    step, baseline = exchange.step, exchange.plan.baseline
    meter = exchange.decoder.meter if exchange.decoder else None
    return Unfinished(
        upstream=meter.pending if meter else "",
        held=exchange.reservation,
        extras=list(exchange.extras),
        record=record,
        spent=spent,
        deployment=step.deployment.id,
        price=step.deployment.price,
        baseline=baseline.deployment.price if baseline is not None else None,
        expected=step.estimate.expected,
        worst=exchange.plan.worst_cost or 0,
    )


def job_of(exchange: Exchange, owner: str, now: float, at: float) -> Job:
    """The job of such a request; `now` is loop time, `at` unix seconds."""
    body = pack(unfinished(exchange, now))
    return Job(f"answer_{exchange.request.id}", KIND, exchange.tenant.id, "pending", at, at, body, lease=owner)

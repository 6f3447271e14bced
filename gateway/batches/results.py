"""What became of a line -> what is owed for it, its record, and the line that its client gets.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs
from msgspec.structs import replace

from gateway import money
from gateway.batches.nouns import Batch, Line
from gateway.dialects.base import Decoder, Dialect
from gateway.dialects.batches.base import CANCELLED, EXPIRED, Result
from gateway.errors import GatewayError
from gateway.ledger.base import Spent
from gateway.plan import Step
from gateway.types import Bucket, Cost, Deployment, Estimate, Key, Outcome, Record, Request, Usage

WORDS = {
    EXPIRED: "This request could not be executed before the completion window expired.",
    CANCELLED: "This request was not executed because the batch was cancelled.",
}
LOST = "batch_line_lost"
COUNTED_CHARS_MAX = 200_000

CountText = Callable[[str, Deployment], int]
ErrorBody = Callable[[GatewayError, Batch, str], tuple[int, bytes]]
"""The status and body that a client of the batch's format sees."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A line that is over.  `written`: for the output file, or for that of errors."""

    spent: Spent
    record: Record
    written: bytes
    good: bool


def unknown(line: Line) -> Settled:
    """Nobody can say what became of the line: all that was set aside is booked, and the cost is unknown."""
    draft = line.held.draft
    record = structs.replace(draft, version=1, outcome=Outcome.UPSTREAM_ERROR, cost=None, estimated=True, error=LOST)
    said = {"code": LOST, "message": "The provider does not say what became of this request."}
    return Settled(Spent(draft.reserved), record, _written(line, None, said), good=False)


class Reading:
    """Reads the results of one batch."""

    def __init__(
        self, batch: Batch, deployments: dict[str, Deployment], dialect: Dialect, count: CountText, error: ErrorBody
    ) -> None:
        self._batch = batch
        self._deployments = {
            id_: replace(found, price=batch.prices[id_]) if id_ in batch.prices else found
            for id_, found in deployments.items()
        }
        self._dialect = dialect
        self._count = count
        self._error = error

    def settled(self, line: Line, result: Result) -> Settled:
        """Only what was answered is owed for.  What an answer used, if it does not say so, is counted by ourselves."""
        if result.code:
            return self._free(line, result.code, {"code": result.code, "message": WORDS[result.code]}, None)
        step = self._step(line)
        if result.status != 200:
            provider = step.deployment.provider
            return self._refused(line, self._dialect.error(max(result.status, 400), {}, result.body, provider))
        decoder = self._dialect.decoder(_request(line, self._batch), step, lambda usage: self._bill(line, usage))
        failure: GatewayError | None = None
        body = b""
        try:
            body = decoder.feed(result.body) + decoder.finish()
        except GatewayError as error:
            failure = error
            if decoder.meter.usage is None and _is_error(result.body):
                return self._refused(line, error)
        return self._answered(line, step, decoder, body, failure)

    def _answered(self, line: Line, step: Step, decoder: Decoder, body: bytes, failure: GatewayError | None) -> Settled:
        meter = decoder.meter
        usage = meter.usage or self._counted(line, step, decoder)
        usage = replace(usage, service_tier=money.BATCH)
        cost = self._bill(line, usage)
        draft = line.held.draft
        record = structs.replace(
            draft,
            version=1,
            outcome=Outcome.OK if failure is None else Outcome.UPSTREAM_ERROR,
            response_model=meter.response_model,
            finish_reason=meter.finish_reason,
            tokens={str(bucket): count for bucket, count in usage.tokens.items()},
            fees=usage.fees,
            estimated=not usage.exact,
            cost=cost.total,
            components=cost.components,
            reported_cost=usage.reported_cost,
            calculated_cost=cost.total,
            status=200 if failure is None else failure.status,
            error=failure.code if failure is not None else "",
            flags=usage.flags,
        )
        owed = draft.reserved if cost.total is None else cost.total
        spent = Spent(owed, 1, usage.input_tokens, usage.output_tokens)
        if failure is not None:
            status, said = self._error(failure, self._batch, line.id)
            return Settled(spent, record, _written(line, (status, said), None), good=False)
        return Settled(spent, record, _written(line, (200, body), None), good=True)

    def _counted(self, line: Line, step: Step, decoder: Decoder) -> Usage:
        told = min(
            self._count(decoder.generated()[:COUNTED_CHARS_MAX], step.deployment), line.output_cap * line.choices
        )
        return Usage({Bucket.INPUT: line.expected, Bucket.OUTPUT: told}, exact=False)

    def _bill(self, line: Line, usage: Usage) -> Cost:
        deployment = self._deployments[line.deployment]
        usage = replace(usage, service_tier=money.BATCH)
        cost = money.cost(usage, deployment.price, line.held.draft.at)
        if usage.reported_cost is None or not deployment.as_reported:
            return cost
        return money.charged(cost, usage.reported_cost)

    def _refused(self, line: Line, error: GatewayError) -> Settled:
        return self._free(line, error.code, None, self._error(error, self._batch, line.id))

    def _free(self, line: Line, code: str, said: dict[str, str] | None, reply: tuple[int, bytes] | None) -> Settled:
        status = reply[0] if reply else 0
        record = structs.replace(
            line.held.draft,
            version=1,
            outcome=Outcome.UPSTREAM_ERROR,
            cost=0,
            estimated=False,
            status=status,
            error=code,
        )
        return Settled(Spent(0), record, _written(line, reply, said), good=False)

    def _step(self, line: Line) -> Step:
        return Step(
            self._deployments[line.deployment],
            Estimate(line.expected, line.expected),
            output_cap=line.output_cap,
            output_expected=0,
            at=line.held.draft.at,
            choices=line.choices,
            service_tier=money.BATCH,
        )


def _is_error(body: bytes) -> bool:
    """Whether a reply of 200 says that there was none; anything else that cannot be read may have been charged."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and bool(found.get("error"))


def _request(line: Line, batch: Batch) -> Request:
    """What a decoder has to know of it."""
    draft = line.held.draft
    key = Key(draft.key, draft.tenant, "", b"")
    return Request(line.id, batch.format, b"{}", {}, draft.model, stream=False, received=draft.at, key=key)


def _written(line: Line, reply: tuple[int, bytes] | None, said: dict[str, str] | None) -> bytes:
    response: dict[str, Any] | None = None
    if reply is not None:
        response = {"status_code": reply[0], "request_id": line.id, "body": msgspec.Raw(reply[1])}
    whole = {"id": f"batch_req_{line.id}", "custom_id": line.custom_id, "response": response, "error": said}
    return msgspec.json.encode(whole) + b"\n"

"""Cheap first: a step's answer is held back until the plan's judge has heard it.

What was paid for and is not sent is kept as a `Trial` of the exchange, and shown as overhead.  The answer of the last
step is not judged: it goes to the client as it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from gateway.conversation import Refusal, Text, ToolCall
from gateway.dialects.deltas import fold
from gateway.dialects.translate import CODECS
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.plan import Judge, Said, Step, Verdict
from gateway.reply_headers import reply_headers
from gateway.trial import Trial
from gateway.types import Request

if TYPE_CHECKING:
    from gateway.pipeline import Pipeline, Send

KEEP_ALIVE = b": still thinking\n\n"
LATE = "late"


def judged(exchange: Exchange, step: Step) -> bool:
    """Whether the answer of the step is held back."""
    return step.judging or step is not exchange.plan.steps[-1]


def skipped(exchange: Exchange, step: Step) -> bool:
    """Whether the step is of no use any more: something is wrong with the answers, or there is none to judge."""
    if exchange.escalated:
        return judged(exchange, step)
    return step.judging and not exchange.trials


async def tried(exchange: Exchange, step: Step, send: Send, pipeline: Pipeline) -> bool:
    """One step on trial.  Whether the client has an answer now, this one or one before it."""
    judge = exchange.plan.judge
    assert judge is not None  # noqa: S101 - plans with a judge only
    heard = [trial.said for trial in exchange.trials if trial.said is not None]
    exchange.asked = judge.asks(exchange.request, step, heard)
    shelf = Shelf(exchange, judge, send)
    attempt = asyncio.create_task(pipeline.attempt(exchange, step, shelf))
    try:
        in_time = await _waited(exchange, attempt, shelf, judge, pipeline)
        if in_time:
            attempt.result()
    except GatewayError:
        if not shelf.through:
            exchange.unsend()
        raise
    finally:
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
    if shelf.through:
        return True
    said = read(exchange.asked, step, bytes(shelf.data)) if in_time else None
    exchange.unsend()  # a client that leaves now has got nothing
    exchange.shelve(said, bytes(shelf.data), await exchange.tokens_generated(pipeline.parts.counter), pipeline.now())
    verdict = Verdict(reason=LATE) if said is None else judge.verdict(exchange.request, [*heard, said])
    return await _heeded(exchange, verdict, send, pipeline)


async def _waited(
    exchange: Exchange, attempt: asyncio.Task[None], shelf: Shelf, judge: Judge, pipeline: Pipeline
) -> bool:
    """Until the attempt is over; a client that waits for a stream is told so.  False: it took too long."""
    until = None if judge.trial_s is None else exchange.began + judge.trial_s
    while True:
        pause = judge.keep_alive_s if exchange.request.stream else None
        if until is not None and not shelf.through:
            left = max(0.0, until - pipeline.now())
            pause = left if pause is None else min(pause, left)
        done, _ = await asyncio.wait({attempt}, timeout=pause)
        if done:
            return True
        if shelf.through:
            continue
        if until is not None and pipeline.now() >= until:
            return False
        if exchange.request.stream:
            await shelf.keep_alive()


async def _heeded(exchange: Exchange, verdict: Verdict, send: Send, pipeline: Pipeline) -> bool:
    if verdict.take is not None:
        heard = [trial for trial in exchange.trials if trial.said is not None]
        exchange.plan = exchange.plan.because(f"cascade: {verdict.reason or 'good enough'}")
        await _sent(exchange, heard[verdict.take], send, pipeline)
        return True
    if verdict.reason:
        exchange.escalated = not verdict.onward
        exchange.plan = exchange.plan.because(f"cascade: escalated, {verdict.reason}")
        pipeline.parts.metrics.escalated(exchange.route.id if exchange.route else "", verdict.reason)
    return False


async def settled_for(exchange: Exchange, send: Send, pipeline: Pipeline) -> bool:
    """When no better answer can be had the client gets the last that was held back; whether there is one."""
    useful = [
        trial for trial in exchange.trials if trial.said is not None and not trial.step.judging and trial.said.finish
    ]
    if not useful:
        return False
    exchange.plan = exchange.plan.because("cascade: nothing better came")
    await _sent(exchange, useful[-1], send, pipeline)
    return True


async def _sent(exchange: Exchange, trial: Trial, send: Send, pipeline: Pipeline) -> None:
    exchange.take(trial)
    await pipeline.end(exchange, trial.data, send)
    exchange.finished = True


class Shelf:
    """A Send that keeps what it gets; a stream that its judge finds promising goes through from then on."""

    def __init__(self, exchange: Exchange, judge: Judge, send: Send) -> None:
        self.data = bytearray()
        self.through = False
        self._exchange = exchange
        self._send = send
        early = judge.early_chars if exchange.request.stream and not exchange.step.judging else None
        self._early = early
        self._judge = judge
        self._headers: list[tuple[bytes, bytes]] = []

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:  # noqa: ARG002 - the protocol's
        """See Send."""
        self._headers = headers

    async def chunk(self, data: bytes) -> None:
        """See Send."""
        if self.through:
            return await self._send.chunk(data)
        self.data += data
        if self._early is not None and (decoder := self._exchange.decoder) is not None:
            text = decoder.generated()
            if len(text) >= self._early and self._judge.promising(text) and not self._declines():
                await self._let_through()
        return None

    async def end(self, data: bytes) -> None:
        """See Send."""
        if self.through:
            return await self._send.end(data)
        self.data += data
        return None

    async def keep_alive(self) -> None:
        """A comment, which every client skips; the first brings the headers."""
        exchange = self._exchange
        if not exchange.opened:
            exchange.opened = True
            await self._send.start(200, reply_headers(exchange))
        await self._send.chunk(KEEP_ALIVE)

    def _declines(self) -> bool:
        """Whether what came says so itself."""
        return read(self._exchange.asked, self._exchange.step, bytes(self.data)).finish == "refused"

    async def _let_through(self) -> None:
        self.through = True
        if not self._exchange.opened:
            await self._send.start(200, self._headers)
        await self._send.chunk(bytes(self.data))


def read(request: Request, step: Step, data: bytes) -> Said:
    """What a reply in the client's format says; one that cannot be read says nothing and has no finish."""
    codec = CODECS[request.format]
    reader = codec.reader(step.deployment.provider, request.received)
    try:
        if request.stream:
            frames = codec.frames()
            deltas = [delta for event in [*frames.feed(data), *frames.rest()] for delta in reader.read(event)]
        else:
            deltas = list(reader.read_whole(data))
    except (GatewayError, orjson.JSONDecodeError):
        return Said(step, "", "")
    answer = fold(deltas).answers[0]
    return Said(
        step,
        "".join(part.text for part in answer.parts if isinstance(part, Text | Refusal)),
        _finish(answer.finish, refused=any(isinstance(part, Refusal) for part in answer.parts)),
        tuple((part.name, part.arguments) for part in answer.parts if isinstance(part, ToolCall)),
        _logprobs((answer.logprobs or {}).get("content")),
    )


def _finish(finish: str | None, *, refused: bool) -> str:
    return "refused" if refused else str(finish or "")


def _logprobs(tokens: object) -> tuple[float, ...]:
    if not isinstance(tokens, Sequence):
        return ()
    found = (token.get("logprob") for token in tokens if isinstance(token, dict))
    return tuple(float(value) for value in found if isinstance(value, int | float))

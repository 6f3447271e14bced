"""What Cohere's Chat v2 answers -> deltas.  The plan before tool calls is reasoning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from gateway import usage
from gateway.conversation import Citation, Finish
from gateway.dialects import fields
from gateway.dialects.deltas import (
    ArgumentsDelta,
    CitationDelta,
    Delta,
    Finished,
    PartEnded,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    UsageSeen,
)
from gateway.dialects.fields import maybe, need
from gateway.dialects.refusal import reported
from gateway.errors import GatewayError
from gateway.types import Provider
from gateway.usage import shapes

Body: TypeAlias = Mapping[str, Any]

FINISHES: Mapping[str, Finish] = {
    "COMPLETE": Finish.END,
    "STOP_SEQUENCE": Finish.STOP_SEQUENCE,
    "MAX_TOKENS": Finish.LENGTH,
    "TOOL_CALL": Finish.TOOLS,
    "ERROR_LIMIT": Finish.CONTEXT_FULL,
    "ERROR_TOXIC": Finish.REFUSED,
}
"""A word that is not here ends the answer as `COMPLETE` does."""

FAILURES: Mapping[str, int] = {"ERROR": 500, "TIMEOUT": 504}
"""Words that say the answer failed, and the status each stands for."""


class CohereReader:
    """See Reader."""

    def __init__(self, provider: Provider, now: float) -> None:
        self.complete = False
        self.failure: GatewayError | None = None
        self._provider = provider
        self._now = now
        self._calls = 0
        self._bare = False  # whether the call that grows has no arguments yet

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one event says; an event nobody knows says nothing."""
        if data == b"[DONE]":
            return ()
        event = fields.mapping(orjson.loads(data), "the event")
        if "type" not in event and "message" in event:
            self.failure = reported(event, self._provider, self._now)
            return ()
        delta = maybe(event, "delta", fields.mapping) or {}
        return list(self._event(event, delta, maybe(delta, "message", fields.mapping, "delta") or {}))

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """A whole reply."""
        reply = fields.mapping(orjson.loads(data), "the reply")
        if not isinstance(reply.get("message"), Mapping):
            self.failure = reported(reply, self._provider, self._now)
            return ()
        message = need(reply, "message", fields.mapping)
        out: list[Delta] = [Started(str(reply.get("id") or ""), "")]
        out += self._plan(message)
        for value in maybe(message, "content", fields.items) or ():
            out += self._content(fields.mapping(value, "message.content[]"))
        for value in maybe(message, "citations", fields.items) or ():
            out.append(CitationDelta(_citation(fields.mapping(value, "message.citations[]"))))
        out += _logprobs(reply.get("logprobs"))
        for value in maybe(message, "tool_calls", fields.items) or ():
            out += [PartEnded(), *self._start_call(fields.mapping(value, "message.tool_calls[]")), *self._end_call()]
        out += self._end(reply)
        return out

    def _event(self, event: Body, delta: Body, message: Body) -> Iterator[Delta]:
        match event.get("type"):
            case "content-delta" | "content-start":
                yield from self._content(need(message, "content", fields.mapping))
                yield from _logprobs(delta.get("logprobs"))
            case "content-end":
                yield PartEnded()
            case "citation-start":
                yield CitationDelta(_citation(need(message, "citations", fields.mapping)))
            case "tool-plan-delta":
                yield from self._plan(message)
            case "tool-call-delta":
                call = need(message, "tool_calls", fields.mapping)
                yield from self._arguments(need(call, "function", fields.mapping, "tool_calls"))
            case "tool-call-start":
                yield from self._start_call(need(message, "tool_calls", fields.mapping))
            case "tool-call-end":
                yield from self._end_call()
            case "message-start":
                yield Started(str(event.get("id") or ""), "")
            case "message-end":
                yield from self._end(delta)

    def _plan(self, message: Body) -> Iterator[Delta]:
        if plan := maybe(message, "tool_plan", fields.string):
            yield ReasoningDelta(plan)

    def _content(self, content: Body) -> Iterator[Delta]:
        if thought := maybe(content, "thinking", fields.string):
            yield ReasoningDelta(thought)
        if text := maybe(content, "text", fields.string):
            yield TextDelta(text)

    def _start_call(self, call: Body) -> Iterator[Delta]:
        function = need(call, "function", fields.mapping, "tool_calls")
        name = need(function, "name", fields.string, "tool_calls.function")
        yield ToolCallStarted(self._calls, need(call, "id", fields.string, "tool_calls"), name)
        self._calls += 1
        self._bare = True
        yield from self._arguments(function)

    def _arguments(self, function: Body) -> Iterator[Delta]:
        if self._calls and (text := maybe(function, "arguments", fields.string)):
            self._bare = False
            yield ArgumentsDelta(self._calls - 1, text)

    def _end_call(self) -> Iterator[Delta]:
        if self._bare:
            self._bare = False
            yield ArgumentsDelta(self._calls - 1, "{}")
        yield PartEnded()

    def _end(self, end: Body) -> Iterator[Delta]:
        seen = usage.read(shapes.COHERE, end.get("usage"), self._provider.options.get("usage", {}))
        if seen is not None:
            yield UsageSeen(seen)
        reason = str(end.get("finish_reason"))
        if reason in FAILURES:
            why = end.get("error") or "the generation failed"
            self.failure = reported({"code": FAILURES[reason], "message": str(why)}, self._provider, self._now)
            return
        self.complete = True
        yield Finished(FINISHES.get(reason, Finish.END))


def _logprobs(logs: object) -> Iterator[Delta]:
    """Log probabilities in OpenAI's shape."""
    tokens: list[dict[str, Any]] = []
    for log in logs if isinstance(logs, list) else [logs]:
        if isinstance(log, Mapping) and isinstance(text := log.get("text"), str) and log.get("logprobs"):
            logprob = sum(fields.number(value, "logprobs") for value in fields.items(log["logprobs"], "logprobs"))
            tokens.append({"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []})
    if tokens:
        yield TextDelta("", logprobs={"content": tokens})


def _citation(citation: Body) -> Citation:
    """What a stretch of the answer rests on: the first source that has an address, else the first."""
    held = [
        holder
        for source in maybe(citation, "sources", fields.items) or ()
        if isinstance(source, Mapping)
        for name in ("document", "tool_output")
        if isinstance(holder := source.get(name), Mapping)
    ]
    first = next((holder for holder in held if holder.get("url")), held[0] if held else {})
    return Citation(
        str(first.get("url") or ""), str(first.get("title") or ""), str(citation.get("text") or ""), citation
    )

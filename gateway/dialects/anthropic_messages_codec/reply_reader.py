"""What an Anthropic Messages provider answers -> deltas.  A whole message is read as the stream it could have been."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from gateway import usage
from gateway.conversation import Finish, Opaque
from gateway.dialects import fields
from gateway.dialects.anthropic_messages_codec.turn_reader import read_citation
from gateway.dialects.deltas import (
    ArgumentsDelta,
    CitationDelta,
    Delta,
    EncryptedReasoning,
    Finished,
    OpaqueDelta,
    PartEnded,
    ReasoningDelta,
    RefusalDelta,
    SignatureDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    UsageSeen,
)
from gateway.dialects.fields import maybe, need
from gateway.dialects.refusal import reported
from gateway.errors import GatewayError
from gateway.types import Format, Provider

FINISHES: Mapping[str, Finish] = {
    "end_turn": Finish.END,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.CONTEXT_FULL,
    "stop_sequence": Finish.STOP_SEQUENCE,
    "tool_use": Finish.TOOLS,
    "pause_turn": Finish.PAUSED,
    "refusal": Finish.REFUSED,
}
"""A word that is not here ends the answer as `end_turn` does."""


class MessagesReader:
    """See Reader."""

    def __init__(self, provider: Provider, now: float) -> None:
        self.complete = False
        self.failure: GatewayError | None = None
        self._provider = provider
        self._now = now
        self._usage: dict[str, Any] = {}  # what message_start said, as later events correct it
        self._block: dict[str, Any] = {}  # the one that grows, as it started
        self._input: list[str] = []  # JSON text of its input so far
        self._calls = 0

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one event says; an event nobody knows says nothing."""
        if data == b"[DONE]":  # not Anthropic's, but some compatible ones'
            return ()
        event = fields.mapping(orjson.loads(data), "the event")
        match event.get("type"):
            case "content_block_delta":
                return list(self._delta(need(event, "delta", fields.mapping)))
            case "content_block_start":
                return list(self._start(need(event, "content_block", fields.mapping)))
            case "content_block_stop":
                return list(self._stop())
            case "message_start":
                return list(self._message(need(event, "message", fields.mapping)))
            case "message_delta":
                return list(self._end(maybe(event, "delta", fields.mapping) or {}, event.get("usage")))
            case "message_stop":
                self.complete = True
            case "error":
                self.failure = reported(event, self._provider, self._now)
        return ()

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """A whole message."""
        message = fields.mapping(orjson.loads(data), "the reply")
        if message.get("type") == "error" or "content" not in message:
            self.failure = reported(message, self._provider, self._now)
            return ()
        out = list(self._message({**message, "usage": None}))
        for i, value in enumerate(need(message, "content", fields.items)):
            out += self._start(fields.mapping(value, f"content[{i}]"))
            out += self._stop()
        out += self._end(message, message.get("usage"))
        self.complete = True
        return out

    def _message(self, message: Mapping[str, Any]) -> Iterator[Delta]:
        yield Started(str(message.get("id") or ""), str(message.get("model") or ""))
        yield from self._count(message.get("usage"))

    def _end(self, delta: Mapping[str, Any], counted: object) -> Iterator[Delta]:
        yield from self._count(counted)
        details = delta.get("stop_details")
        if isinstance(details, Mapping) and (why := details.get("explanation")):
            yield RefusalDelta(str(why))
        if reason := delta.get("stop_reason"):
            self.complete = True
            yield Finished(FINISHES.get(str(reason), Finish.END), maybe(delta, "stop_sequence", fields.string))

    def _count(self, counted: object) -> Iterator[Delta]:
        """Later figures replace earlier ones; what is not restated holds."""
        if not isinstance(counted, Mapping):
            return
        self._usage |= {name: value for name, value in counted.items() if value is not None}
        seen = usage.read(usage.MESSAGES, self._usage, self._provider.options.get("usage", {}))
        if seen is not None:
            yield UsageSeen(seen)

    def _start(self, block: Mapping[str, Any]) -> Iterator[Delta]:
        self._block, self._input = dict(block), []
        match block.get("type"):
            case "text":
                yield from self._text(block)
            case "thinking":
                if text := block.get("thinking"):
                    yield ReasoningDelta(fields.string(text, "content.thinking"))
                if signature := block.get("signature"):
                    yield SignatureDelta(fields.string(signature, "content.signature"))
            case "redacted_thinking":
                yield EncryptedReasoning(need(block, "data", fields.string))
            case "tool_use":
                id_, name = need(block, "id", fields.string), need(block, "name", fields.string)
                yield ToolCallStarted(self._calls, id_, name)

    def _text(self, block: Mapping[str, Any]) -> Iterator[Delta]:
        if text := block.get("text"):
            yield TextDelta(fields.string(text, "content.text"))
        for citation in maybe(block, "citations", fields.items) or ():
            yield CitationDelta(read_citation(fields.mapping(citation, "content.citations")))

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Delta]:
        match delta.get("type"):
            case "text_delta":
                yield TextDelta(need(delta, "text", fields.string))
            case "input_json_delta":
                text = need(delta, "partial_json", fields.string)
                self._input.append(text)
                if text and self._block.get("type") == "tool_use":
                    yield ArgumentsDelta(self._calls, text)
            case "thinking_delta":
                yield ReasoningDelta(need(delta, "thinking", fields.string))
            case "signature_delta":
                yield SignatureDelta(need(delta, "signature", fields.string))
            case "citations_delta":
                yield CitationDelta(read_citation(need(delta, "citation", fields.mapping)))
            case _:
                self._block |= {name: value for name, value in delta.items() if name != "type"}

    def _stop(self) -> Iterator[Delta]:
        kind = self._block.get("type")
        grown = "".join(self._input)
        if kind == "tool_use":
            if not grown:
                yield ArgumentsDelta(self._calls, orjson.dumps(self._block.get("input") or {}).decode())
            self._calls += 1
        elif kind not in ("text", "thinking", "redacted_thinking"):
            if grown:
                self._block["input"] = orjson.loads(grown)
            yield OpaqueDelta(Opaque(Format.MESSAGES, str(kind), self._block))
        yield PartEnded()

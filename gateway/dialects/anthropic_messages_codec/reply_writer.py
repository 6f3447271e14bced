"""Deltas and replies -> what an Anthropic Messages client reads.

A stream begins with the input tokens the provider has told, else with those expected; the last but one event has the
true count.
Of several answers the first is written: an Anthropic client cannot ask for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.conversation import Citation, Finish, Opaque, Part, Reasoning, Refusal, Reply, Text, ToolCall
from gateway.dialects.blocks import parsed_arguments, thinking_block
from gateway.dialects.codec import Heading
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
from gateway.dialects.relay import error_code
from gateway.errors import GatewayError
from gateway.money import dollars
from gateway.sse import event
from gateway.types import Bucket, Cost, Format, Usage

FINISHES: Mapping[Finish, str] = {
    Finish.END: "end_turn",
    Finish.LENGTH: "max_tokens",
    Finish.CONTEXT_FULL: "model_context_window_exceeded",
    Finish.STOP_SEQUENCE: "stop_sequence",
    Finish.TOOLS: "tool_use",
    Finish.PAUSED: "pause_turn",
    Finish.REFUSED: "refusal",
}


def usage_block(usage: Usage, cost: Cost | None = None) -> dict[str, Any]:
    """Usage in Anthropic's shape: cached tokens beside the input, thinking within the output; `cost` if known."""
    tokens = usage.tokens
    short = tokens.get(Bucket.CACHE_WRITE_5M, 0) + tokens.get(Bucket.CACHE_WRITE_30M, 0)
    long = tokens.get(Bucket.CACHE_WRITE_1H, 0) + tokens.get(Bucket.CACHE_WRITE_12H, 0)
    block: dict[str, Any] = {
        "input_tokens": usage.input_tokens - usage.cached_tokens - short - long,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    if short or long:
        block["cache_creation"] = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    if thinking := tokens.get(Bucket.REASONING, 0):
        block["output_tokens_details"] = {"thinking_tokens": thinking}
    if searches := usage.fees.get("web_search", 0):
        block["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": 0}
    if cost is not None and cost.total is not None:
        block["cost"] = orjson.Fragment(dollars(cost.total))
    return block


def error_event(error: GatewayError) -> bytes:
    """The event that ends a broken stream; no message_stop follows."""
    what = {"type": error.anthropic_type, "message": error.message, "code": error_code(error)}
    return _event("error", {"error": what})


def write_reply(reply: Reply, heading: Heading, cost: Cost | None) -> bytes:
    """See Codec.write_reply."""
    answer = reply.answers[0]
    message = _head(heading, reply.id, reply.model)
    message["content"] = [block for part in answer.parts if (block := _block(part)) is not None]
    refused = any(isinstance(part, Refusal) for part in answer.parts)
    finish = Finish.REFUSED if refused else answer.finish or Finish.END
    message |= {"stop_reason": FINISHES[finish], "stop_sequence": answer.stop_sequence}
    message["usage"] = usage_block(reply.usage or Usage(), cost)
    return orjson.dumps(message)


class MessagesWriter:
    """See Writer."""

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._counted: Usage | None = None
        self._started = False
        self._next = 0  # index of the next content block
        self._open = ""  # kind of the block that is open
        self._calls: dict[int, int] = {}  # index of a call -> of its block
        self._refused = False
        self._finished: Finished | None = None
        self._waiting: Started | None = None

    def write(self, delta: Delta) -> bytes:
        """The events that say `delta`."""
        match delta:
            case Started():
                self._waiting = delta
                return b""
            case UsageSeen(usage):
                self._counted = usage
                return b""
            case Finished(choice=0):
                self._finished = delta
                return b""
        return self._content(delta) if delta.choice == 0 else b""

    def end(self, usage: Usage | None, cost: Cost | None) -> bytes:
        """The end of the last block, the reason, the true count."""
        opened = self._begin() + self._close()
        finished = self._finished
        reason = Finish.REFUSED if self._refused else finished.finish if finished else Finish.END
        delta = {"stop_reason": FINISHES[reason], "stop_sequence": finished.stop_sequence if finished else None}
        counted = usage_block(usage or self._counted or Usage(), cost)
        return opened + _event("message_delta", {"delta": delta, "usage": counted}) + _event("message_stop", {})

    def _content(self, delta: Delta) -> bytes:
        match delta:
            case TextDelta(text):
                return self._grow("text", {"type": "text_delta", "text": text}) if text else b""
            case ArgumentsDelta(index, text):
                return self._arguments(index, text)
            case ReasoningDelta(text):
                return self._grow("thinking", {"type": "thinking_delta", "thinking": text})
            case SignatureDelta(signature):
                return self._grow("thinking", {"type": "signature_delta", "signature": signature})
            case ToolCallStarted(index, id_, name):
                self._calls[index] = self._next
                return self._start("tool_use", {"type": "tool_use", "id": id_, "name": name, "input": {}})
            case RefusalDelta(text):
                self._refused = True
                return self._grow("text", {"type": "text_delta", "text": text})
            case CitationDelta(citation):
                return self._grow("text", {"type": "citations_delta", "citation": _citation(citation)})
            case _:
                return self._whole(delta)

    def _whole(self, delta: Delta) -> bytes:
        match delta:
            case EncryptedReasoning(data):
                return self._start("whole", thinking_block(Reasoning(encrypted=data))) + self._close()
            case OpaqueDelta(part) if part.format is Format.MESSAGES:
                return self._start("whole", part.value) + self._close()
            case PartEnded():
                return self._close()
            case _:
                return b""

    def _grow(self, kind: str, delta: Mapping[str, Any]) -> bytes:
        opened = b"" if self._open == kind else self._start(kind, _EMPTY[kind])
        return opened + _event("content_block_delta", {"index": self._next - 1, "delta": delta})

    def _arguments(self, index: int, text: str) -> bytes:
        """Arguments go to their own block, though it may be closed: calls may grow in turns."""
        block = self._calls[index]
        return _event(
            "content_block_delta", {"index": block, "delta": {"type": "input_json_delta", "partial_json": text}}
        )

    def _start(self, kind: str, block: Mapping[str, Any]) -> bytes:
        closed = self._begin() + self._close()
        self._open = kind
        self._next += 1
        return closed + _event("content_block_start", {"index": self._next - 1, "content_block": block})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event("content_block_stop", {"index": self._next - 1})

    def _begin(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        named = self._waiting or Started("", "")
        counted = self._counted or Usage({Bucket.INPUT: self._heading.input_expected})
        message = _head(self._heading, named.id, named.model) | {"usage": usage_block(counted)}
        return _event("message_start", {"message": message})


_EMPTY: Mapping[str, Mapping[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


def _event(name: str, body: Mapping[str, Any]) -> bytes:
    return event(orjson.dumps({"type": name, **body}), name)


def _head(heading: Heading, id_: str, model: str) -> dict[str, Any]:
    return {
        "id": id_ or f"msg_{heading.id}",
        "type": "message",
        "role": "assistant",
        "model": model or heading.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _block(part: Part) -> Mapping[str, Any] | None:
    match part:
        case Text(text, citations):
            written: dict[str, Any] = {"type": "text", "text": text}
            return written | {"citations": [_citation(citation) for citation in citations]} if citations else written
        case Refusal(text):
            return {"type": "text", "text": text}
        case Reasoning():
            return thinking_block(part)
        case ToolCall(id_, name, arguments):
            return {"type": "tool_use", "id": id_, "name": name, "input": _input(arguments)}
        case Opaque(format=Format.MESSAGES):
            return part.value
        case _:
            return None


def _input(arguments: str) -> Mapping[str, Any]:
    """A call cut short by the output cap does not parse; its text is kept."""
    parsed = parsed_arguments(arguments)
    return {"unparsed_arguments": arguments} if parsed is None else parsed


def _citation(citation: Citation) -> Mapping[str, Any]:
    if "cited_text" in citation.source:
        return citation.source
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title,
        "cited_text": citation.quote,
        "encrypted_index": "",
    }

"""What Bedrock's Converse answers -> deltas.  A whole message is read block by block as a stream would bring it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from gateway.conversation import Citation, Finish, Opaque
from gateway.dialects import fields
from gateway.dialects.deltas import (
    ArgumentsDelta,
    CitationDelta,
    Delta,
    EncryptedReasoning,
    Finished,
    OpaqueDelta,
    PartEnded,
    ReasoningDelta,
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
from gateway.usage import shapes

FINISHES: Mapping[str, Finish] = {
    "end_turn": Finish.END,
    "tool_use": Finish.TOOLS,
    "max_tokens": Finish.LENGTH,
    "stop_sequence": Finish.STOP_SEQUENCE,
    "model_context_window_exceeded": Finish.CONTEXT_FULL,
    "guardrail_intervened": Finish.REFUSED,
    "content_filtered": Finish.REFUSED,
}
"""A word that is not here ends the answer as `end_turn` does."""

_LOCATIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "documentChar": (
        "char_location",
        {"documentIndex": "document_index", "start": "start_char_index", "end": "end_char_index"},
    ),
    "documentPage": (
        "page_location",
        {"documentIndex": "document_index", "start": "start_page_number", "end": "end_page_number"},
    ),
    "documentChunk": (
        "content_block_location",
        {"documentIndex": "document_index", "start": "start_block_index", "end": "end_block_index"},
    ),
    "searchResultLocation": (
        "search_result_location",
        {"searchResultIndex": "search_result_index", "start": "start_block_index", "end": "end_block_index"},
    ),
}
"""Amazon's name of a place in a source -> Anthropic's, field by field: they are the same places."""


class ConverseReader:
    """See Reader."""

    def __init__(self, provider: Provider, now: float) -> None:
        self.complete = False
        self.failure: GatewayError | None = None
        self._provider = provider
        self._now = now
        self._calls = 0
        self._growing: dict[int, int] = {}  # by content block: the tool call that grows there
        self._bare: set[int] = set()  # tool calls that have no arguments yet
        self._foreign: dict[int, dict[str, Any]] = {}  # by content block: what only Amazon's own tools say

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one event says, named as in `bedrock_frames.event`; an event nobody knows says nothing."""
        event = fields.mapping(orjson.loads(data), "the event")
        return [delta for name, value in event.items() for delta in self._event(name, fields.mapping(value, name))]

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """A whole reply."""
        reply = fields.mapping(orjson.loads(data), "the reply")
        if "output" not in reply:
            self.failure = reported(reply, self._provider, self._now)
            return ()
        output = need(reply, "output", fields.mapping)
        message = need(output, "message", fields.mapping, "output")
        out: list[Delta] = [Started("", "")]
        for i, value in enumerate(need(message, "content", fields.items, "output.message")):
            out += self._block(fields.mapping(value, f"output.message.content[{i}]"), i)
        out += self._stop(reply)
        out += self._count(reply)
        return out

    def _event(self, name: str, event: Mapping[str, Any]) -> Iterator[Delta]:
        match name:
            case "contentBlockDelta":
                yield from self._delta(event)
            case "contentBlockStart":
                yield from self._start(event)
            case "contentBlockStop":
                yield from self._end(event)
            case "messageStart":
                yield Started("", "")  # Converse names neither the reply nor the model
            case "messageStop":
                yield from self._stop(event)
            case "metadata":
                yield from self._count(event)
            case "error":
                self.failure = reported({"error": event}, self._provider, self._now)

    def _block(self, block: Mapping[str, Any], index: int) -> Iterator[Delta]:
        """One whole content block."""
        if (thought := maybe(block, "reasoningContent", fields.mapping)) is not None:
            yield from self._reasoning(maybe(thought, "reasoningText", fields.mapping) or thought)
        elif (cited := maybe(block, "citationsContent", fields.mapping)) is not None:
            for said in maybe(cited, "content", fields.items) or ():
                yield from self._delta({"delta": said})
            for citation in maybe(cited, "citations", fields.items) or ():
                yield CitationDelta(_citation(fields.mapping(citation, "citations[]")))
        elif (call := maybe(block, "toolUse", fields.mapping)) is not None:
            yield from self._start({"contentBlockIndex": index, "start": block})
            if index in self._growing and (arguments := call.get("input")):
                self._bare.discard(self._growing[index])
                yield ArgumentsDelta(self._growing[index], orjson.dumps(arguments).decode())
        elif "text" in block:
            yield from self._delta({"delta": block})
        else:
            self._foreign[index] = dict(block)
        yield from self._end({"contentBlockIndex": index})

    def _start(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        index, start = _index(event), need(event, "start", fields.mapping)
        call = maybe(start, "toolUse", fields.mapping)
        if call is None or call.get("type") == "server_tool_use":
            self._foreign[index] = dict(start)
            return
        id_, name = need(call, "toolUseId", fields.string), need(call, "name", fields.string)
        self._growing[index] = self._calls
        self._bare.add(self._calls)
        yield ToolCallStarted(self._calls, id_, name)
        self._calls += 1

    def _delta(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        delta = need(event, "delta", fields.mapping)
        if "text" in delta:
            yield TextDelta(need(delta, "text", fields.string))
        elif (call := maybe(delta, "toolUse", fields.mapping)) is not None:
            yield from self._arguments(_index(event), need(call, "input", fields.string))
        elif (thought := maybe(delta, "reasoningContent", fields.mapping)) is not None:
            yield from self._reasoning(thought)
        elif (citation := maybe(delta, "citation", fields.mapping)) is not None:
            yield CitationDelta(_citation(citation))
        elif (block := self._foreign.get(_index(event))) is not None:
            block.setdefault("deltas", []).append(delta)

    def _arguments(self, index: int, text: str) -> Iterator[Delta]:
        call = self._growing.get(index)
        if call is None:
            self._foreign.setdefault(index, {}).setdefault("deltas", []).append({"toolUse": {"input": text}})
        elif text:
            self._bare.discard(call)
            yield ArgumentsDelta(call, text)

    def _reasoning(self, thought: Mapping[str, Any]) -> Iterator[Delta]:
        if text := maybe(thought, "text", fields.string):
            yield ReasoningDelta(text)
        if signature := maybe(thought, "signature", fields.string):
            yield SignatureDelta(signature)
        if data := maybe(thought, "redactedContent", fields.string):
            yield EncryptedReasoning(data)

    def _end(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        index = _index(event)
        call = self._growing.get(index)
        if call is not None and call in self._bare:
            self._bare.remove(call)
            yield ArgumentsDelta(call, "{}")
        if (foreign := self._foreign.pop(index, None)) is not None:
            yield OpaqueDelta(Opaque(Format.CONVERSE, next(iter(foreign), ""), foreign))
        yield PartEnded()

    def _stop(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        self.complete = True
        yield Finished(FINISHES.get(str(event.get("stopReason")), Finish.END))

    def _count(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        rules = self._provider.options.get("usage", {})
        seen = shapes.read_converse(event.get("usage"), rules, _tier(event))
        if seen is not None:
            yield UsageSeen(seen)


def _index(event: Mapping[str, Any]) -> int:
    return need(event, "contentBlockIndex", fields.integer)


def _tier(event: Mapping[str, Any]) -> object:
    """The tier that is billed; a latency that is optimized has prices of its own."""
    performance, tier = event.get("performanceConfig"), event.get("serviceTier")
    if isinstance(performance, Mapping) and performance.get("latency") == "optimized":
        return "optimized"
    return tier.get("type", "") if isinstance(tier, Mapping) else ""


def _citation(citation: Mapping[str, Any]) -> Citation:
    """A place in a document is told in Anthropic's words, so that clients of its format understand it."""
    title = str(citation.get("title") or "")
    quote = "".join(
        str(item.get("text") or "")
        for item in maybe(citation, "sourceContent", fields.items) or ()
        if isinstance(item, Mapping)
    )
    location = maybe(citation, "location", fields.mapping) or {}
    web = maybe(location, "web", fields.mapping) or {}
    source: Mapping[str, Any] = citation
    for name, (kind, names) in _LOCATIONS.items():
        if place := maybe(location, name, fields.mapping):
            told = {theirs: place[ours] for ours, theirs in names.items() if ours in place}
            titled = {"title": title} if kind == "search_result_location" else {"document_title": title or None}
            found = {"source": citation["source"]} if "source" in citation else {}
            source = {"type": kind, "cited_text": quote, **titled, **told, **found}
    return Citation(str(web.get("url") or ""), title, quote, source)

"""What a provider of OpenAI's Responses answers -> deltas.

A stream is read from its deltas; what a provider sent only in the end of an item, or only in the last event, is read
from there.  Items of tools that the provider ran itself are carried whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    RefusalDelta,
    SignatureDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    UsageSeen,
)
from gateway.dialects.fields import maybe
from gateway.dialects.openai_responses_codec.item_reader import reasoning
from gateway.dialects.openai_responses_codec.metering import metered
from gateway.dialects.refusal import reported
from gateway.errors import GatewayError
from gateway.types import Format, Provider

Event = Mapping[str, Any]

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_INCOMPLETE: Mapping[str, Finish] = {"content_filter": Finish.REFUSED}
_WITHOUT = b"[DONE]"


class ResponsesReader:
    """See Reader."""

    def __init__(self, provider: Provider, now: float) -> None:
        self.complete = False
        self.failure: GatewayError | None = None
        self._provider = provider
        self._now = now
        self._started = False
        self._calls: dict[int | None, int] = {}  # by output index: which call it is
        self._said: set[int | None] = set()  # output indexes of which something has been told
        self._whole: set[int | None] = set()  # output indexes that are done
        self._text: dict[int | None, list[str]] = {}  # by output index, for citations that point into it

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one event says."""
        if data == _WITHOUT:
            return ()
        event = fields.mapping(orjson.loads(data), "the event")
        kind = event.get("type")
        if kind == "error" or (kind is None and event.get("error")):
            self.failure = reported(event, self._provider, self._now)
            return ()
        read = _EVENTS.get(str(kind))
        if read is not None:
            return list(read(self, event))
        response = event.get("response")
        return list(self._response(response, str(kind) in ENDS)) if isinstance(response, Mapping) else ()

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """A whole reply: a stream of one event."""
        body = fields.mapping(orjson.loads(data), "the reply")
        if "output" not in body:
            self.failure = reported(body, self._provider, self._now)
            return ()
        return list(self._response(body, ended=True))

    def _response(self, response: Event, ended: bool) -> Iterator[Delta]:  # a fact, not a mode
        if not self._started:
            self._started = True
            yield Started(str(response.get("id") or ""), str(response.get("model") or ""))
        if not ended:
            return
        for index, item in enumerate(maybe(response, "output", fields.items) or ()):
            if index not in self._whole:
                yield from self._item_done({"output_index": index, "item": item})
        if response.get("error") or response.get("status") == "failed":
            self.failure = reported(response, self._provider, self._now)
        if (seen := metered(response, self._provider)) is not None:
            yield UsageSeen(seen)
        self.complete = True
        yield Finished(self._finish(response))

    def _finish(self, response: Event) -> Finish:
        details = response.get("incomplete_details")
        if response.get("status") == "incomplete" and isinstance(details, Mapping):
            return _INCOMPLETE.get(str(details.get("reason")), Finish.LENGTH)
        return Finish.TOOLS if self._calls else Finish.END

    def _item_added(self, event: Event) -> Iterator[Delta]:
        item, index = fields.mapping(event.get("item"), "item"), _place(event)
        if item.get("type") == "function_call" and index not in self._calls:
            ours = self._calls[index] = len(self._calls)
            yield ToolCallStarted(ours, str(item.get("call_id") or f"call_{ours}"), str(item.get("name") or ""))

    def _piece(self, event: Event) -> str:
        text = maybe(event, "delta", fields.string) or ""
        if text:
            self._said.add(_place(event))
        return text

    def _text_delta(self, event: Event) -> Iterator[Delta]:
        text, logprobs = self._piece(event), _logprobs(event.get("logprobs"))
        if text or logprobs:
            self._text.setdefault(_place(event), []).append(text)
            yield TextDelta(text, logprobs=logprobs)

    def _refusal_delta(self, event: Event) -> Iterator[Delta]:
        if text := self._piece(event):
            yield RefusalDelta(text)

    def _thought_delta(self, event: Event) -> Iterator[Delta]:
        if text := self._piece(event):
            yield ReasoningDelta(text)

    def _summary_part(self, event: Event) -> Iterator[Delta]:
        if event.get("summary_index") and _place(event) in self._said:
            yield ReasoningDelta("\n\n")

    def _arguments(self, event: Event) -> Iterator[Delta]:
        ours = self._calls.get(_place(event))
        if ours is not None and (text := self._piece(event)):
            yield ArgumentsDelta(ours, text)

    def _annotation(self, event: Event) -> Iterator[Delta]:
        annotation = event.get("annotation")
        if isinstance(annotation, Mapping):
            text = "".join(self._text.get(_place(event), ()))
            yield CitationDelta(_citation(annotation, text))

    def _item_done(self, event: Event) -> Iterator[Delta]:
        """The item whole: what its deltas have not told yet."""
        item, index = fields.mapping(event.get("item"), "item"), _place(event)
        kind, told = str(item.get("type") or ""), index in self._said
        self._whole.add(index)
        match kind:
            case "message":
                if not told:
                    yield from _message(item)
                yield PartEnded()
            case "reasoning":
                yield from _thought(item, told)
            case "function_call":
                yield from self._item_added(event)
                arguments = maybe(item, "arguments", fields.string)
                if arguments and not told:
                    yield ArgumentsDelta(self._calls[index], arguments)
            case _:
                yield OpaqueDelta(Opaque(Format.RESPONSES, kind, item))


_EVENTS: Mapping[str, Callable[[ResponsesReader, Event], Iterator[Delta]]] = {
    "response.output_item.added": ResponsesReader._item_added,  # noqa: SLF001  # its own table
    "response.output_item.done": ResponsesReader._item_done,  # noqa: SLF001  # its own table
    "response.output_text.delta": ResponsesReader._text_delta,  # noqa: SLF001  # its own table
    "response.output_text.annotation.added": ResponsesReader._annotation,  # noqa: SLF001  # its own table
    "response.refusal.delta": ResponsesReader._refusal_delta,  # noqa: SLF001  # its own table
    "response.reasoning_summary_part.added": ResponsesReader._summary_part,  # noqa: SLF001  # its own table
    "response.reasoning_summary_text.delta": ResponsesReader._thought_delta,  # noqa: SLF001  # its own table
    "response.reasoning_text.delta": ResponsesReader._thought_delta,  # noqa: SLF001  # its own table
    "response.function_call_arguments.delta": ResponsesReader._arguments,  # noqa: SLF001  # its own table
}


def _place(event: Event) -> int | None:
    """Which item of the output it is about."""
    return maybe(event, "output_index", fields.integer)


def _message(item: Event) -> Iterator[Delta]:
    for value in maybe(item, "content", fields.items) or ():
        part = fields.mapping(value, "content[]")
        if isinstance(refusal := part.get("refusal"), str):
            yield RefusalDelta(refusal)
            continue
        text = maybe(part, "text", fields.string) or ""
        yield TextDelta(text, logprobs=_logprobs(part.get("logprobs")))
        for annotation in maybe(part, "annotations", fields.items) or ():
            if isinstance(annotation, Mapping):
                yield CitationDelta(_citation(annotation, text))


def _thought(item: Event, told: bool) -> Iterator[Delta]:  # a fact, not a mode
    for thought in reasoning(item):
        if thought.encrypted:
            yield SignatureDelta(thought.encrypted) if told else EncryptedReasoning(thought.encrypted)
            continue
        if not told:
            yield ReasoningDelta(thought.text)
        if thought.signature:
            yield SignatureDelta(thought.signature)
    yield PartEnded()


def _citation(annotation: Event, text: str) -> Citation:
    start, end = annotation.get("start_index"), annotation.get("end_index")
    spoken = isinstance(start, int) and isinstance(end, int) and 0 <= start <= end
    url = annotation.get("url") if annotation.get("type") == "url_citation" else ""
    return Citation(str(url or ""), str(annotation.get("title") or ""), text[start:end] if spoken else "", annotation)


def _logprobs(tokens: object) -> Mapping[str, Any] | None:
    """In the shape of Chat Completions."""
    return {"content": tokens} if isinstance(tokens, list) and tokens else None

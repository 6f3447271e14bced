"""Deltas -> the stream of typed events that an OpenAI Responses client reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.conversation import Citation, Finish, ToolCall
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
from gateway.dialects.openai_responses_codec.shapes import Item, Items, annotation_of, response, usage_block
from gateway.types import Cost, Usage


class ResponsesWriter:
    """See Writer."""

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._items = Items(heading)
        self._model = ""
        self._sequence = 0
        self._started = False
        self._output: list[Item] = []
        self._open: _Growing | None = None  # the message or thought that grows
        self._calls: dict[int, tuple[int, Item, list[str]]] = {}  # by index: place in the output, item, arguments
        self._finish = Finish.END

    def write(self, delta: Delta) -> bytes:
        """The events that say `delta`."""
        if getattr(delta, "choice", 0):
            return b""
        match delta:
            case TextDelta(text, _, logprobs):
                return self._grow("output_text", text, (logprobs or {}).get("content"))
            case ReasoningDelta(text):
                return self._grow("summary_text", text)
            case RefusalDelta(text):
                return self._grow("refusal", text)
            case ArgumentsDelta(index, text):
                return self._arguments(index, text)
            case ToolCallStarted():
                return self._close() + self._call(delta)
            case Started(_, model):
                self._model = model
                return self._start()
            case _:
                return self._rarer(delta)

    def end(self, usage: Usage | None, cost: Cost | None) -> bytes:
        """What is still open is closed, and the whole response told."""
        out = self._start() + self._close() + b"".join(self._call_done(index) for index in list(self._calls))
        body = response(self._heading, self._model, self._output, self._finish)
        if usage is not None:
            body["usage"] = usage_block(usage, cost)
        return out + self._event(f"response.{body['status']}", response=body)

    def _rarer(self, delta: Delta) -> bytes:
        match delta:
            case CitationDelta(citation):
                return self._cite(citation)
            case SignatureDelta(signature):
                if not isinstance(self._open, _Growing) or self._open.kind != "summary_text":
                    return self._whole(self._items.thought("", signature))
                self._open.item["encrypted_content"] = signature
                return self._close()
            case EncryptedReasoning(data):
                return self._whole(self._items.thought("", data))
            case OpaqueDelta(part):
                return self._whole(self._items.opaque(part))
            case PartEnded():
                return self._close_part()
            case Finished(finish):
                self._finish = finish
                return b""
            case UsageSeen():
                return b""
        return b""

    def _start(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        body = response(self._heading, self._model, [], None)
        return self._event("response.created", response=body) + self._event("response.in_progress", response=body)

    def _grow(self, kind: str, text: str, logprobs: Sequence[Any] | None = None) -> bytes:
        out = b""
        growing = self._open
        if growing is None or growing.ended or growing.kind != kind:
            if not text and not logprobs:
                return b""
            out = self._turn_to(kind)
            growing = self._open
        if growing is None:
            return out
        growing.texts.append(text)
        if logprobs:
            growing.logprobs += logprobs
        more = {"logprobs": list(logprobs or ())} if kind == "output_text" else {}
        return out + self._event(f"response.{growing.event}.delta", **growing.place, delta=text, **more)

    def _turn_to(self, kind: str) -> bytes:
        """Opens a part of this kind, in the same message where that can hold it."""
        growing = self._open
        if growing is not None and "summary_text" not in (growing.kind, kind):
            out = self._close_part()
            self._open = growing = growing.followed(kind)
        else:
            out = self._start() + self._close()
            item = self._items.message([]) if kind != "summary_text" else self._items.thought("", "")
            growing = self._open = _Growing(kind, len(self._output), item, 0)
            self._output.append(item)
            shown = {**item, "status": "in_progress"}
            out += self._event("response.output_item.added", output_index=growing.index, item=shown)
        return out + self._event(f"response.{growing.part_event}.added", **growing.place, part=growing.part(""))

    def _close_part(self) -> bytes:
        """Ends the part; the message may go on with another."""
        growing = self._open
        if growing is None or growing.ended:
            return b""
        growing.ended = True
        text = "".join(growing.texts)
        part = growing.part(text)
        growing.parts.append(part)
        name = "refusal" if growing.kind == "refusal" else "text"
        more = {"logprobs": growing.logprobs} if growing.kind == "output_text" else {}
        return self._event(f"response.{growing.event}.done", **growing.place, **{name: text}, **more) + self._event(
            f"response.{growing.part_event}.done", **growing.place, part=part
        )

    def _close(self) -> bytes:
        growing = self._open
        if growing is None:
            return b""
        out = self._close_part()
        self._open = None
        return out + self._event("response.output_item.done", output_index=growing.index, item=growing.item)

    def _cite(self, citation: Citation) -> bytes:
        out = b""
        if self._open is None or self._open.kind != "output_text" or self._open.ended:
            out = self._turn_to("output_text")
        growing = self._open
        if growing is None:
            return out
        annotation = annotation_of(citation, sum(map(len, growing.texts)))
        place = {**growing.place, "annotation_index": len(growing.annotations)}
        growing.annotations.append(annotation)
        return out + self._event("response.output_text.annotation.added", **place, annotation=annotation)

    def _whole(self, item: Item) -> bytes:
        """An item that came in one piece."""
        out = self._start() + self._close()
        index = len(self._output)
        self._output.append(item)
        return (
            out
            + self._event("response.output_item.added", output_index=index, item=item)
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _call(self, call: ToolCallStarted) -> bytes:
        item = self._items.call(ToolCall(call.id, call.name, ""))
        index = len(self._output)
        self._output.append(item)
        self._calls[call.index] = (index, item, [])
        shown = {**item, "status": "in_progress"}
        return self._start() + self._event("response.output_item.added", output_index=index, item=shown)

    def _arguments(self, index: int, text: str) -> bytes:
        place, item, texts = self._calls[index]
        texts.append(text)
        where = {"output_index": place, "item_id": item["id"]}
        return self._event("response.function_call_arguments.delta", **where, delta=text)

    def _call_done(self, index: int) -> bytes:
        place, item, texts = self._calls.pop(index)
        item["arguments"] = "".join(texts)
        done = {"output_index": place, "item_id": item["id"], "name": item["name"], "arguments": item["arguments"]}
        return self._event("response.function_call_arguments.done", **done) + self._event(
            "response.output_item.done", output_index=place, item=item
        )

    def _event(self, kind: str, **said: object) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **said}
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event))


class _Growing:
    """A part of a message or of a thought that is being told."""

    def __init__(self, kind: str, index: int, item: Item, position: int) -> None:
        self.kind = kind
        self.index = index
        self.item = item
        self.position = position
        self.ended = False
        self.texts: list[str] = []
        self.logprobs: list[Any] = []
        self.annotations: list[Mapping[str, Any]] = []

    @property
    def parts(self) -> list[Item]:
        """Those of the item that are whole."""
        found: list[Item] = self.item["summary" if self.kind == "summary_text" else "content"]
        return found

    @property
    def event(self) -> str:
        return "reasoning_summary_text" if self.kind == "summary_text" else self.kind

    @property
    def part_event(self) -> str:
        return "reasoning_summary_part" if self.kind == "summary_text" else "content_part"

    @property
    def place(self) -> dict[str, Any]:
        name = "summary_index" if self.kind == "summary_text" else "content_index"
        return {"output_index": self.index, "item_id": self.item["id"], name: self.position}

    def part(self, text: str) -> Item:
        if self.kind == "output_text":
            return {
                "type": self.kind,
                "text": text,
                "annotations": list(self.annotations),
                "logprobs": list(self.logprobs),
            }
        return {"type": self.kind, ("refusal" if self.kind == "refusal" else "text"): text}

    def followed(self, kind: str) -> _Growing:
        """The next part of the same message."""
        return _Growing(kind, self.index, self.item, self.position + 1)

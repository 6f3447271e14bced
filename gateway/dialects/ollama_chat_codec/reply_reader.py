"""What Ollama's own chat answers -> deltas.  A whole reply is a stream of one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

import orjson

from gateway import ndjson, usage
from gateway.conversation import Finish
from gateway.dialects import fields
from gateway.dialects.deltas import (
    ArgumentsDelta,
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

COUNTS = ("prompt_eval_count", "eval_count")


class LineFrames:
    """See Frames.  A whole reply is a line as well."""

    whole: bytearray | None = None

    def __init__(self) -> None:
        self._splitter = ndjson.Splitter()

    def feed(self, chunk: bytes) -> list[bytes]:
        return self._splitter.feed(chunk)

    def rest(self) -> list[bytes]:
        return self._splitter.rest()


class OllamaReader:
    """See Reader."""

    def __init__(self, provider: Provider, now: float) -> None:
        self.complete = False
        self.failure: GatewayError | None = None
        self._provider = provider
        self._now = now
        self._started = False
        self._calls = 0

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one line says."""
        line = fields.mapping(orjson.loads(data), "the line")
        if "error" in line or ("message" not in line and "done" not in line):
            self.failure = reported(line, self._provider, self._now)
            return ()
        return list(self._line(line))

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """A whole reply."""
        return self.read(data)

    def _line(self, line: Mapping[str, Any]) -> Iterator[Delta]:
        if not self._started:
            self._started = True
            yield Started("", str(line.get("model") or ""))
        message = maybe(line, "message", fields.mapping) or {}
        if thought := maybe(message, "thinking", fields.string):
            yield ReasoningDelta(thought)
        if text := maybe(message, "content", fields.string):
            yield TextDelta(text)
        if logprobs := line.get("logprobs"):
            yield TextDelta("", logprobs={"content": logprobs})
        for value in maybe(message, "tool_calls", fields.items) or ():
            yield from self._call(fields.mapping(value, "message.tool_calls[]"), str(line.get("created_at")))
        if line.get("done"):
            yield from self._done(line)

    def _call(self, call: Mapping[str, Any], moment: str) -> Iterator[Delta]:
        """A call, which always comes whole.  Older versions give it no id."""
        function = need(call, "function", fields.mapping, "message.tool_calls[]")
        id_ = maybe(call, "id", fields.string) or f"call_{crc32(moment.encode()):08x}_{self._calls}"
        arguments = function.get("arguments")
        yield ToolCallStarted(self._calls, id_, need(function, "name", fields.string, "function"))
        yield ArgumentsDelta(self._calls, arguments if isinstance(arguments, str) else _written(arguments))
        yield PartEnded()
        self._calls += 1

    def _done(self, line: Mapping[str, Any]) -> Iterator[Delta]:
        self.complete = True
        counts = {name: line[name] for name in COUNTS if name in line}
        seen = usage.read(shapes.OLLAMA, counts, self._provider.options.get("usage", {}))
        if seen is not None:
            yield UsageSeen(seen)
        finish = Finish.TOOLS if self._calls else Finish.END
        yield Finished(Finish.LENGTH if line.get("done_reason") == "length" else finish)


def _written(arguments: object) -> str:
    return orjson.dumps({} if arguments is None else arguments).decode()

"""What an OpenAI Chat Completions provider answers -> deltas.

Compatible providers differ, and all of these are read: reasoning in `reasoning_content`, `reasoning` or thinking parts
of the content; content as text, parts or a JSON object; tool calls without index, or with several under one index;
arguments as an object; a message where a delta belongs; usage in any chunk.  Log probabilities of another shape than
OpenAI's are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from gateway import usage
from gateway.conversation import Citation, Finish
from gateway.dialects import fields
from gateway.dialects.deltas import (
    ArgumentsDelta,
    CitationDelta,
    Delta,
    EncryptedReasoning,
    Finished,
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
from gateway.dialects.refusal import reported
from gateway.errors import GatewayError
from gateway.types import Provider, Usage

FINISHES: Mapping[str, Finish] = {
    "stop": Finish.END,
    "eos": Finish.END,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOLS,
    "tool_call": Finish.TOOLS,
    "function_call": Finish.TOOLS,
    "content_filter": Finish.REFUSED,
}
"""A word that is not here ends the answer as `stop` does."""

_PLAIN = frozenset({"role", "content"})


class ChatReader:
    """See Reader."""

    def __init__(self, provider: Provider, now: float) -> None:
        self.complete = False
        self.failure: GatewayError | None = None
        self._provider = provider
        self._now = now
        self._started = False
        self._calls: dict[tuple[int, int], tuple[int, str]] = {}  # by choice and index: the call that grows there
        self._call_counts: dict[int, int] = {}  # by choice
        self._texts: dict[int, list[str]] = {}  # by choice: said so far, for citations that point into it
        self._thinking: set[int] = set()  # choices whose reasoning has not been signed yet

    def read(self, data: bytes) -> Sequence[Delta]:
        """What one chunk says."""
        if data == b"[DONE]":
            self.complete = True
            return ()
        return self._body(data, ("delta", "message"))

    def read_whole(self, data: bytes) -> Sequence[Delta]:
        """A whole reply: a stream of one chunk."""
        deltas = self._body(data, ("message", "delta"))
        self.complete = True
        return deltas

    def _body(self, data: bytes, names: tuple[str, str]) -> list[Delta]:
        """`names` are the fields that hold what is said, the better first: some providers send both."""
        body = fields.mapping(orjson.loads(data), "the reply")
        if body.get("error") or (body.get("choices") is None and _is_error(body, whole=names[0] == "message")):
            self.failure = reported(body, self._provider, self._now)
        out: list[Delta] = []
        if not self._started and (body.get("id") or body.get("choices")):
            self._started = True
            out.append(Started(str(body.get("id") or ""), str(body.get("model") or "")))
        for position, choice in enumerate(maybe(body, "choices", fields.items) or ()):
            out += self._choice(fields.mapping(choice, "choices[]"), position, names)
        if (seen := self._usage(body)) is not None:
            out.append(UsageSeen(seen))
        return out

    def _usage(self, body: Mapping[str, Any]) -> Usage | None:
        block = body.get("usage")
        if block is None and isinstance(groq := body.get("x_groq"), dict):
            block = groq.get("usage")
        if block is None:
            return None
        return usage.read(usage.CHAT, block, self._provider.options.get("usage", {}), body.get("service_tier", ""))

    def _choice(self, choice: Mapping[str, Any], position: int, names: tuple[str, str]) -> Iterator[Delta]:
        index = maybe(choice, "index", fields.integer)
        at = position if index is None else index
        if choice.get("error"):
            self.failure = reported(choice, self._provider, self._now)
        name = names[0] if choice.get(names[0]) is not None else names[1]
        message = maybe(choice, name, fields.mapping) or {}
        said = self._content(message, at) if message.keys() <= _PLAIN else self._message(message, at)
        logprobs = choice.get("logprobs")
        yield from _probable(said, logprobs, at) if isinstance(logprobs, dict) else said
        if finish := choice.get("finish_reason") or _old_finish(choice):
            self.complete = True
            yield Finished(FINISHES.get(str(finish), Finish.END), None, at)

    def _message(self, message: Mapping[str, Any], choice: int) -> Iterator[Delta]:
        yield from self._reasoning(message, choice)
        yield from self._content(message, choice)
        if refusal := maybe(message, "refusal", fields.string):
            yield RefusalDelta(refusal, choice)
        for annotation in _objects(message.get("annotations")):
            yield from self._annotation(annotation, choice)
        for i, call in enumerate(maybe(message, "tool_calls", fields.items) or ()):
            yield from self._tool_call(fields.mapping(call, "tool_calls[]"), i, choice)
        if call := maybe(message, "function_call", fields.mapping):
            yield from self._tool_call({"index": 0, "function": call}, 0, choice)

    def _content(self, message: Mapping[str, Any], choice: int) -> Iterator[Delta]:
        content = message.get("content")
        if not content:
            return
        for delta in (TextDelta(content, choice),) if isinstance(content, str) else _parts(content, choice):
            if isinstance(delta, TextDelta):
                self._texts.setdefault(choice, []).append(delta.text)
            yield delta

    def _annotation(self, annotation: Mapping[str, Any], choice: int) -> Iterator[Delta]:
        cited = annotation.get("url_citation")
        if not isinstance(cited, Mapping):
            return
        start, end = cited.get("start_index"), cited.get("end_index")
        spoken = isinstance(start, int) and isinstance(end, int) and 0 <= start <= end
        quote = "".join(self._texts.get(choice, ()))[start:end] if spoken else ""
        yield CitationDelta(
            Citation(str(cited.get("url") or ""), str(cited.get("title") or ""), quote, annotation), choice
        )

    def _tool_call(self, call: Mapping[str, Any], position: int, choice: int) -> Iterator[Delta]:
        block = call.get("function") or call.get("custom") or {}
        block = fields.mapping(block, "tool_calls.function")
        id_, name = str(call.get("id") or ""), str(block.get("name") or "")
        index = maybe(call, "index", fields.integer, "tool_calls")
        key = (choice, position if index is None else index)
        ours, known = self._calls.get(key, (0, None))
        if known is None or (id_ and name and id_ != known):
            ours = self._call_counts.get(choice, 0)
            self._call_counts[choice] = ours + 1
            self._calls[key] = (ours, id_)
            yield ToolCallStarted(ours, id_ or f"call_{choice}_{ours}", name, choice)
        arguments = block.get("arguments", block.get("input"))
        if isinstance(arguments, Mapping | list):
            arguments = orjson.dumps(arguments).decode()
        if arguments:
            yield ArgumentsDelta(ours, fields.string(arguments, "tool_calls.function.arguments"), choice)

    def _reasoning(self, message: Mapping[str, Any], choice: int) -> Iterator[Delta]:
        """Signed blocks may repeat what plain reasoning said before them, or come alone."""
        told = False
        for block in _objects(message.get("thinking_blocks")):
            if data := block.get("data"):
                yield EncryptedReasoning(str(data), choice)
            if (text := block.get("thinking")) and choice not in self._thinking:
                told = True
                self._thinking.add(choice)
                yield ReasoningDelta(str(text), choice)
            if signature := block.get("signature"):
                self._thinking.discard(choice)
                yield SignatureDelta(str(signature), choice)
                yield PartEnded(choice)
        text = message.get("reasoning_content") or message.get("reasoning")
        if text and not told:
            self._thinking.add(choice)
            yield ReasoningDelta(fields.string(text, "reasoning_content"), choice)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """The objects in what may be a list: what only adorns an answer does not break it."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))


def _is_error(body: Mapping[str, Any], *, whole: bool) -> bool:
    """Whether a body without choices is an error laid flat.  A whole reply must have them."""
    return whole or body.get("object") == "error" or ("id" not in body and bool(body.keys() & {"message", "detail"}))


def _probable(said: Iterable[Delta], logprobs: Mapping[str, Any], choice: int) -> Iterator[Delta]:
    """The probabilities of a chunk's tokens, with its text where it has one."""
    left: Mapping[str, Any] | None = logprobs
    for delta in said:
        if left is not None and isinstance(delta, TextDelta):
            yield replace(delta, logprobs=left)
            left = None
        else:
            yield delta
    if left is not None:
        yield TextDelta("", choice, left)


def _old_finish(choice: Mapping[str, Any]) -> object:
    """The finish reason of the first vision models."""
    details = choice.get("finish_details")
    kind = details.get("type") if isinstance(details, Mapping) else None
    return "length" if kind == "max_tokens" else kind


def _parts(content: object, choice: int) -> Iterator[Delta]:
    if isinstance(content, Mapping):
        yield TextDelta(orjson.dumps(content).decode(), choice)
        return
    for value in fields.items(content, "content"):
        part = fields.mapping(value, "content[]")
        thinking = part.get("thinking")
        if thinking is not None:
            yield from (ReasoningDelta(text, choice) for text in _thinking_texts(thinking))
        elif isinstance(text := part.get("text"), str):
            yield TextDelta(text, choice)


def _thinking_texts(thinking: object) -> Iterator[str]:
    if isinstance(thinking, str):
        yield thinking
    elif isinstance(thinking, list):
        for part in thinking:
            if isinstance(part, Mapping) and isinstance(text := part.get("text"), str):
                yield text

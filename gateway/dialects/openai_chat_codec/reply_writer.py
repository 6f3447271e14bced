"""Deltas and replies -> what an OpenAI Chat Completions client reads.

Beyond OpenAI's own fields: `reasoning_content`; `thinking_blocks`, whole and signed, for the client to send back;
`citations` of sources that have no URL; `provider_blocks`, what only the provider's format can say; `usage.cost` in
dollars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.conversation import Answer, Citation, Finish, Opaque, Reasoning, Refusal, Reply, Text, ToolCall
from gateway.dialects.blocks import thinking_block
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
from gateway.dialects.openai_chat_codec.request_writer import reasoning_content, tool_call
from gateway.dialects.relay import error_code
from gateway.errors import GatewayError
from gateway.money import dollars
from gateway.types import Bucket, Cost, Usage

FINISHES: Mapping[Finish, str] = {
    Finish.END: "stop",
    Finish.STOP_SEQUENCE: "stop",
    Finish.PAUSED: "stop",
    Finish.LENGTH: "length",
    Finish.CONTEXT_FULL: "length",
    Finish.TOOLS: "tool_calls",
    Finish.REFUSED: "content_filter",
}

CACHE_WRITES = (
    Bucket.CACHE_WRITE_5M,
    Bucket.CACHE_WRITE_30M,
    Bucket.CACHE_WRITE_1H,
    Bucket.CACHE_WRITE_12H,
)


def usage_block(usage: Usage, cost: Cost | None) -> dict[str, Any]:
    """Usage in OpenAI's shape: cached tokens within the prompt, reasoning within the completion; `cost` if known."""
    tokens = usage.tokens
    prompt = {"cached_tokens": usage.cached_tokens}
    if writes := sum(tokens.get(bucket, 0) for bucket in CACHE_WRITES):
        prompt["cache_write_tokens"] = writes
    if audio := tokens.get(Bucket.AUDIO_IN, 0) + tokens.get(Bucket.AUDIO_CACHE_READ, 0):
        prompt["audio_tokens"] = audio
    completion = {"reasoning_tokens": tokens.get(Bucket.REASONING, 0)}
    if audio := tokens.get(Bucket.AUDIO_OUT, 0):
        completion["audio_tokens"] = audio
    block: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": completion,
    }
    return block | cost_field(cost)


def cost_field(cost: Cost | None) -> dict[str, Any]:
    """`cost` in dollars, exact; nothing where it is not known."""
    if cost is None or cost.total is None:
        return {}
    return {"cost": orjson.Fragment(dollars(cost.total))}


def error_event(error: GatewayError) -> bytes:
    """The event that ends a broken stream; no [DONE] follows."""
    block = {"message": error.message, "type": error.type, "param": error.param, "code": error_code(error)}
    return b"data: " + orjson.dumps({"error": block}) + b"\n\n"


def write_reply(reply: Reply, heading: Heading, cost: Cost | None) -> bytes:
    """See Codec.write_reply."""
    body = _head(heading, reply.id, reply.model, "chat.completion")
    body["choices"] = [_choice(answer, index) for index, answer in enumerate(reply.answers)]
    if reply.usage is not None:
        body["usage"] = usage_block(reply.usage, cost)
    return orjson.dumps(body)


class ChatWriter:
    """See Writer."""

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._head = b""
        self._thoughts: dict[int, list[str]] = {}  # by choice, until they are signed
        self._said: dict[int, int] = {}  # by choice: characters so far
        self._part_start: dict[int, int] = {}
        self._citations: dict[int, list[Citation]] = {}  # of the text that grows

    def write(self, delta: Delta) -> bytes:
        """The chunks that say `delta`."""
        match delta:
            case TextDelta(text, choice, logprobs):
                return self._text(text, choice, logprobs)
            case ReasoningDelta(text, choice):
                self._thoughts.setdefault(choice, []).append(text)
                return self._chunk({"reasoning_content": text}, choice)
            case ArgumentsDelta(index, text, choice):
                return self._chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]}, choice)
            case ToolCallStarted(index, id_, name, choice):
                call = tool_call(ToolCall(id_, name, ""))
                return self._cite(choice) + self._chunk({"tool_calls": [{"index": index, **call}]}, choice)
            case RefusalDelta(text, choice):
                return self._chunk({"refusal": text}, choice)
            case Started(id_, model):
                return self._start(id_, model)
            case UsageSeen():
                return b""
            case _:
                return self._rarer(delta)

    def end(self, usage: Usage | None, cost: Cost | None) -> bytes:
        """The usage chunk, if it was asked for, and [DONE]."""
        last = b"data: [DONE]\n\n"
        if not self._heading.include_usage or usage is None:
            return last
        block = orjson.dumps(usage_block(usage, cost))
        return self._opened() + b'"choices":[],"usage":' + block + b"}\n\n" + last

    def _rarer(self, delta: Delta) -> bytes:
        match delta:
            case SignatureDelta(signature, choice):
                thought = Reasoning("".join(self._thoughts.pop(choice, ())), signature)
                return self._chunk({"thinking_blocks": [thinking_block(thought)]}, choice)
            case EncryptedReasoning(data, choice):
                return self._chunk({"thinking_blocks": [thinking_block(Reasoning(encrypted=data))]}, choice)
            case CitationDelta(citation, choice):
                self._citations.setdefault(choice, []).append(citation)
                return b""
            case OpaqueDelta(part, choice):
                return self._chunk({"provider_blocks": [part.value]}, choice)
            case PartEnded(choice):
                self._thoughts.pop(choice, None)
                return self._cite(choice)
            case Finished(finish, _, choice):
                return self._cite(choice) + self._chunk({}, choice, f'"{FINISHES[finish]}"'.encode())
            case _:
                return b""

    def _start(self, id_: str, model: str) -> bytes:
        head = _head(self._heading, id_, model, "chat.completion.chunk")
        self._head = b"data: " + orjson.dumps(head)[:-1] + b","
        return self._chunk({"role": "assistant", "content": ""}, 0)

    def _text(self, text: str, choice: int, logprobs: Mapping[str, Any] | None) -> bytes:
        if text:
            self._said[choice] = self._said.get(choice, 0) + len(text)
        return self._chunk({"content": text}, choice, logprobs=logprobs)

    def _cite(self, choice: int) -> bytes:
        """The citations of the text that just ended."""
        start, end = self._part_start.get(choice, 0), self._said.get(choice, 0)
        self._part_start[choice] = end
        citations = self._citations.pop(choice, None)
        return self._chunk(_citations(citations, start, end), choice) if citations else b""

    def _opened(self) -> bytes:
        return self._head or self._start("", "") + self._head

    def _chunk(
        self,
        delta: Mapping[str, Any],
        choice: int,
        finish: bytes = b"null",
        logprobs: Mapping[str, Any] | None = None,
    ) -> bytes:
        written = b'"choices":[{"index":%d,"delta":%b,' % (choice, orjson.dumps(delta))
        if logprobs is not None:
            written += b'"logprobs":%b,' % orjson.dumps(logprobs)
        usage = b',"usage":null' if self._heading.include_usage else b""
        return self._opened() + written + b'"finish_reason":%b}]%b}\n\n' % (finish, usage)


def _head(heading: Heading, id_: str, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": id_ or f"chatcmpl-{heading.id}",
        "object": kind,
        "created": heading.created,
        "model": model or heading.model,
    }


def _choice(answer: Answer, index: int) -> dict[str, Any]:
    finish = FINISHES[answer.finish] if answer.finish else "stop"
    return {"index": index, "message": _message(answer), "logprobs": answer.logprobs, "finish_reason": finish}


def _message(answer: Answer) -> dict[str, Any]:
    texts = [part for part in answer.parts if isinstance(part, Text)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(part.text for part in texts) if texts else None}
    refusals = [part.text for part in answer.parts if isinstance(part, Refusal)]
    message["refusal"] = "".join(refusals) if refusals else None
    if calls := [tool_call(part) for part in answer.parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = calls
    thoughts = [part for part in answer.parts if isinstance(part, Reasoning)]
    message |= reasoning_content(thoughts)
    if blocks := [thinking_block(part) for part in thoughts if part.signature or part.encrypted]:
        message["thinking_blocks"] = blocks
    if opaque := [part.value for part in answer.parts if isinstance(part, Opaque)]:
        message["provider_blocks"] = opaque
    return message | _cited(texts)


def _cited(texts: Sequence[Text]) -> dict[str, list[Any]]:
    fields: dict[str, list[Any]] = {}
    start = 0
    for text in texts:
        end = start + len(text.text)
        for name, values in _citations(text.citations, start, end).items():
            fields.setdefault(name, []).extend(values)
        start = end
    return fields


def _citations(citations: Sequence[Citation], start: int, end: int) -> dict[str, list[Any]]:
    """URLs as OpenAI's annotations on the text from `start` to `end`; other sources as they came."""
    fields: dict[str, list[Any]] = {}
    for citation in citations:
        if citation.url:
            cited = {"url": citation.url, "title": citation.title, "start_index": start, "end_index": end}
            fields.setdefault("annotations", []).append({"type": "url_citation", "url_citation": cited})
        else:
            fields.setdefault("citations", []).append(citation.source)
    return fields

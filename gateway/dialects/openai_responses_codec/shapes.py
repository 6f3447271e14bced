"""A response object and its items, as an OpenAI Responses client reads them.

Beyond OpenAI's own fields: `usage.cost` in dollars; annotations of the provider's own kind, for sources without a URL.
A thought's `encrypted_content` is what its provider wants to see again, whoever it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from gateway.conversation import Answer, Citation, Finish, Opaque, Part, Reasoning, Refusal, Reply, Text, ToolCall
from gateway.dialects.codec import Heading
from gateway.dialects.openai_chat_codec.reply_writer import CACHE_WRITES, cost_field
from gateway.dialects.openai_responses_codec.request_writer import reasoning_item
from gateway.dialects.relay import error_code
from gateway.errors import GatewayError
from gateway.types import Bucket, Cost, Format, Usage

FINISHES: Mapping[Finish, str] = {
    Finish.END: "completed",
    Finish.STOP_SEQUENCE: "completed",
    Finish.PAUSED: "completed",
    Finish.TOOLS: "completed",
    Finish.LENGTH: "max_output_tokens",
    Finish.CONTEXT_FULL: "max_output_tokens",
    Finish.REFUSED: "content_filter",
}
"""The status, or why the response is incomplete."""

Item = dict[str, Any]


def usage_block(usage: Usage, cost: Cost | None) -> dict[str, Any]:
    """Usage in the shape of Responses: cached tokens within the input, reasoning within the output; `cost` if known."""
    tokens = usage.tokens
    writes = sum(tokens.get(bucket, 0) for bucket in CACHE_WRITES)
    block: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": writes},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": tokens.get(Bucket.REASONING, 0)},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return block | cost_field(cost)


def error_event(error: GatewayError) -> bytes:
    """The event that ends a broken stream; SDKs look for `error`, the format's own fields stand beside it."""
    code = error_code(error)
    block = {"message": error.message, "type": error.type, "param": error.param, "code": code}
    event = {"type": "error", "code": code, "message": error.message, "param": error.param, "error": block}
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def write_reply(reply: Reply, heading: Heading, cost: Cost | None) -> bytes:
    """See Codec.write_reply."""
    items = Items(heading)
    answer = reply.answers[0]
    body = response(heading, reply.model, list(items.of(answer)), answer.finish or Finish.END)
    if reply.usage is not None:
        body["usage"] = usage_block(reply.usage, cost)
    return orjson.dumps(body)


def response(heading: Heading, model: str, output: list[Item], finish: Finish | None) -> Item:
    """The response object; `finish` None: it is still being made."""
    word = "in_progress" if finish is None else FINISHES[finish]
    complete = word in ("in_progress", "completed")
    return {
        "id": f"resp_{heading.id}",
        "object": "response",
        "created_at": heading.created,
        "status": word if complete else "incomplete",
        "background": False,
        "error": None,
        "incomplete_details": None if complete else {"reason": word},
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model or heading.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "user": None,
    }


class Items:
    """Names the items of one response."""

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._count = 0

    def named(self, prefix: str, item: Item) -> Item:
        self._count += 1
        return {"id": f"{prefix}_{self._heading.id}_{self._count}", **item}

    def message(self, content: list[Item]) -> Item:
        return self.named("msg", {"type": "message", "role": "assistant", "status": "completed", "content": content})

    def call(self, call: ToolCall) -> Item:
        said = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        return self.named("fc", {"type": "function_call", "status": "completed", **said})

    def thought(self, text: str, sealed: str) -> Item:
        return self.named("rs", reasoning_item(text, sealed or None))

    def opaque(self, part: Opaque) -> Item:
        """An item of this format as it came; another provider's block within its own kind of item."""
        if part.format is Format.RESPONSES:
            return dict(part.value)
        return self.named("pb", {"type": "provider_block", "format": part.format, "block": part.value})

    def of(self, answer: Answer) -> Iterator[Item]:
        said: list[Part] = []
        for part in answer.parts:
            if isinstance(part, Text | Refusal):
                said.append(part)
                continue
            yield from self._said(said, answer.logprobs)
            said = []
            match part:
                case ToolCall():
                    yield self.call(part)
                case Reasoning():
                    yield self.thought(part.text, part.encrypted or part.signature)
                case Opaque():
                    yield self.opaque(part)
        yield from self._said(said, answer.logprobs)

    def _said(self, parts: Sequence[Part], logprobs: Mapping[str, Any] | None) -> Iterator[Item]:
        content: list[Item] = []
        for part in parts:
            if isinstance(part, Refusal):
                content.append({"type": "refusal", "refusal": part.text})
            elif isinstance(part, Text):
                content.append(_text(part.text, part.citations, logprobs))
        if content:
            yield self.message(content)


def _text(text: str, citations: Sequence[Citation], logprobs: Mapping[str, Any] | None) -> Item:
    tokens = (logprobs or {}).get("content") or []
    annotations = [annotation_of(citation, len(text)) for citation in citations]
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": tokens}


def annotation_of(citation: Citation, end: int) -> Mapping[str, Any]:
    """The citation of a text of `end` characters."""
    if not citation.url:
        return citation.source
    return {"type": "url_citation", "url": citation.url, "title": citation.title, "start_index": 0, "end_index": end}

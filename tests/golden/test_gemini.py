"""Google's generateContent: every recorded reply, as clients of other formats get it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import corpus
import pytest
from anthropic.types import Message
from corpus import Row, drain, pieces, request, step
from grown import calls_of_chat, calls_of_message, grown_chat, grown_message, texts
from openai.types.chat import ChatCompletion

from gateway.dialects.base import Decoder
from gateway.dialects.gemini import Gemini
from gateway.errors import ContextOverflow, UpstreamDenied, UpstreamRateLimited, UpstreamRejected
from gateway.types import Bucket, Cost, Format, Provider

pytestmark = pytest.mark.corpus

DIALECT = Gemini(clock=lambda: 1_754_667_600.0)
GOOGLE = Provider("google", "gemini", "https://generativelanguage.googleapis.com/v1beta", "secret-key")

STOPS = {"STOP": "stop", 1: "stop", "MAX_TOKENS": "length", None: "stop"}
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

UNFINISHED = {"be22718c97ec1d19"}
"""Says nothing of why it ended: made up by its recorder, one token in and one out."""


def answers() -> list[Row]:
    """Good answers; submitting a batch is none."""
    rows = corpus.rows("generate_content")
    return [row for row in rows if row["response_status"] == 200 and ":batch" not in row["url"]]


def chunks(row: Row) -> list[dict[str, Any]]:
    if row["response_format"] == "sse":
        return [json.loads(event[event.index("{") :]) for event in row["response_events"]]
    body = row["response_body"]
    return body if isinstance(body, list) else [body]


def parts(row: Row) -> Iterator[dict[str, Any]]:
    """Of the first answer."""
    for chunk in chunks(row):
        for candidate in chunk.get("candidates") or ():
            if candidate.get("index", 0) == 0:
                yield from (candidate.get("content") or {}).get("parts") or ()


def counted(row: Row) -> Mapping[str, Any]:
    """The last usage that counts anything."""
    blocks = [chunk.get("usageMetadata") or {} for chunk in chunks(row)]
    found: Mapping[str, Any] = next(block for block in reversed(blocks) if "promptTokenCount" in block)
    return found


def decoder(row: Row, client: Format) -> Decoder:
    body = {"stream": row["response_format"] == "sse", "stream_options": {"include_usage": True}}
    return DIALECT.decoder(request(client, body), step(GOOGLE, row["model"]), lambda usage: Cost(1_500))


def ids(row: Row) -> str:
    return str(row["id"])


def test_enough_is_recorded() -> None:
    assert len(answers()) > 1_100


def test_the_buckets_of_every_recorded_usage_sum_to_its_total() -> None:
    for row in answers():
        read = decoder(row, Format.CHAT)
        drain(read, [corpus.body(row)])
        found, block = read.meter.usage, counted(row)
        assert found is not None, row["id"]
        assert found.flags == (), row["id"]
        assert sum(found.tokens.values()) == block["totalTokenCount"], row["id"]
        assert found.input_tokens == block["promptTokenCount"] + block.get("toolUsePromptTokenCount", 0), row["id"]
        assert found.cached_tokens == block.get("cachedContentTokenCount", 0), row["id"]
        assert found.tokens.get(Bucket.REASONING, 0) == block.get("thoughtsTokenCount", 0), row["id"]
        assert found.reported == block, row["id"]
        assert (read.meter.complete, found.service_tier) == (True, ""), row["id"]


@pytest.mark.parametrize("client", [Format.CHAT, Format.MESSAGES])
def test_every_recorded_answer_is_the_same_answer_to_its_client(client: Format) -> None:
    for row in answers():
        out = drain(decoder(row, client), [corpus.body(row)])
        said = as_chat(row, out) if client is Format.CHAT else as_message(row, out)
        own = list(parts(row))
        text = "".join(part["text"] for part in own if "text" in part and not part.get("thought"))
        thought = "".join(part["text"] for part in own if "text" in part and part.get("thought"))
        called = [part["functionCall"] for part in own if "functionCall" in part]
        assert said["text"] == text, row["id"]
        assert said["thought"] == thought, row["id"]
        assert [(name, arguments) for _, name, arguments in said["calls"]] == [
            (call["name"], call.get("args", {})) for call in called
        ], row["id"]
        assert all(id_ for id_, _, _ in said["calls"])
        assert len({id_ for id_, _, _ in said["calls"]}) == len(called), row["id"]
        assert said["finish"] == finish(row, client), row["id"]
        assert said["signatures"] == [
            part["thoughtSignature"]
            for part in own
            if "thoughtSignature" in part and ("text" in part or "functionCall" in part)
        ], row["id"]
        block = counted(row)
        spent = block.get("candidatesTokenCount", 0) + block.get("thoughtsTokenCount", 0)
        assert said["output"] == spent, row["id"]


def finish(row: Row, client: Format) -> str:
    reasons = [candidate.get("finishReason") for chunk in chunks(row) for candidate in chunk.get("candidates") or ()]
    reason = next((reason for reason in reversed(reasons) if reason), None)
    assert reason is not None or row["id"] in UNFINISHED
    word = STOPS[reason]
    if word == "stop" and any("functionCall" in part for part in parts(row)):
        word = "tool_calls"
    return word if client is Format.CHAT else STOP_REASONS[word]


def as_chat(row: Row, out: bytes) -> dict[str, Any]:
    if row["response_format"] == "sse":
        assert out.endswith(b"data: [DONE]\n\n")
        reply = grown_chat(out)
        message, reason = reply["message"], reply["finish_reason"]
    else:
        reply = json.loads(out)
        ChatCompletion.model_validate(reply)
        message, reason = reply["choices"][0]["message"], reply["choices"][0]["finish_reason"]
    return {
        "text": message["content"] or "",
        "thought": message.get("reasoning_content") or "",
        "calls": calls_of_chat(message),
        "finish": reason,
        "signatures": [bare(block) for block in message.get("thinking_blocks", ())],
        "output": reply["usage"]["completion_tokens"],
    }


def as_message(row: Row, out: bytes) -> dict[str, Any]:
    message = grown_message(out) if row["response_format"] == "sse" else json.loads(out)
    Message.model_validate(message)
    thoughts = [block for block in message["content"] if block["type"] == "thinking"]
    return {
        "text": texts(message, "text", "text"),
        "thought": texts(message, "thinking", "thinking"),
        "calls": calls_of_message(message),
        "finish": message["stop_reason"],
        "signatures": [bare(block) for block in thoughts if block["signature"]],
        "output": message["usage"]["output_tokens"],
    }


def bare(block: dict[str, Any]) -> str:
    mark, place, signature = block["signature"].split(":", 2)
    assert mark == "gemini"
    assert place
    return str(signature)


@pytest.mark.parametrize("client", [Format.CHAT, Format.MESSAGES])
def test_a_stream_split_anywhere_is_the_same_stream(client: Format) -> None:
    streams = [row for row in answers() if row["response_format"] == "sse"]
    for row in random.Random(5).sample(streams, 120):
        data = corpus.body(row)
        whole = drain(decoder(row, client), [data])
        assert drain(decoder(row, client), pieces(data, seed=len(data))) == whole, row["id"]
    short = min(streams, key=lambda row: len(corpus.body(row)))
    data = corpus.body(short)
    single = [data[at : at + 1] for at in range(len(data))]
    assert drain(decoder(short, client), single) == drain(decoder(short, client), [data])


def test_searches_are_counted_as_each_generation_bills_them() -> None:
    for row in answers():
        queries = {
            query
            for chunk in chunks(row)
            for candidate in chunk.get("candidates") or ()
            for query in candidate.get("groundingMetadata", {}).get("webSearchQueries", ())
            if query  # Google sends empty ones too, and bills them not
        }
        read = decoder(row, Format.CHAT)
        drain(read, [corpus.body(row)])
        assert read.meter.usage is not None
        each = len(queries) if "gemini-3" in row["model"] else min(1, len(queries))
        assert read.meter.usage.fees == ({"web_search": each} if each else {}), row["id"]


def test_every_recorded_error_is_a_leaf_with_its_advice() -> None:
    kinds: dict[tuple[int, str], int] = {}
    for row in corpus.refused("generate_content"):
        error = DIALECT.error(row["response_status"], row["response_headers"] or {}, corpus.body(row), GOOGLE)
        kinds[row["response_status"], type(error).__name__] = (
            kinds.get((row["response_status"], type(error).__name__), 0) + 1
        )
        if isinstance(error, UpstreamRateLimited):
            assert error.retry_after_s == 48
        if isinstance(error, ContextOverflow):
            assert "1250074" in error.message
    assert kinds == {
        (404, UpstreamDenied.__name__): 42,
        (400, UpstreamDenied.__name__): 16,
        (403, UpstreamDenied.__name__): 1,
        (429, UpstreamRateLimited.__name__): 1,
        (400, ContextOverflow.__name__): 1,
        (400, UpstreamRejected.__name__): 14,
    }

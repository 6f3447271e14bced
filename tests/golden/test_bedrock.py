"""Bedrock's Converse and Invoke: every recorded reply, as clients of other formats get it."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import corpus
import pytest
from anthropic.types import Message
from corpus import Row, drain, pieces, request, step
from grown import calls_of_chat, calls_of_message, grown_chat, grown_message, texts
from openai.types.chat import ChatCompletion

from gateway.dialects.base import Decoder
from gateway.dialects.bedrock_converse import BedrockConverse
from gateway.dialects.bedrock_invoke import BedrockInvoke
from gateway.errors import (
    ContextOverflow,
    GatewayError,
    UpstreamBroken,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
)
from gateway.eventstream import Splitter
from gateway.types import Bucket, Cost, Format, Provider

pytestmark = pytest.mark.corpus

CONVERSE = BedrockConverse(clock=lambda: 1_754_667_600.0)
INVOKE = BedrockInvoke(clock=lambda: 1_754_667_600.0)
AMAZON = Provider("amazon", "bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com", "secret-key")

STOPS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "guardrail_intervened": "content_filter"}
STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}
MISCOUNTED = {"6692788ab8cda7e0"}
"""Amazon's own metrics have 35 output tokens where the model's usage has 38, which holds."""

CLIENTS = [Format.CHAT, Format.MESSAGES]


def good(kind: str) -> list[Row]:
    return [row for row in corpus.rows(kind) if row["response_status"] == 200 and row["provider"] == "bedrock"]


def invoked() -> list[Row]:
    """Those in a format of their maker's that is spoken here: Claude's messages and OpenAI's chat.

    The others (embeddings, and text completions of Titan, Llama 2, Command, Jurassic and Claude 2) are not chat.
    """
    spoken = ("anthropic.claude-3", "anthropic.claude-opus", "anthropic.claude-sonnet", "anthropic.claude-haiku")
    return [row for row in good("invoke") if any(name in row["model"] for name in (*spoken, "openai."))]


def decoder(row: Row, client: Format) -> Decoder:
    body = {"stream": row["streaming"], "stream_options": {"include_usage": True}}
    dialect = CONVERSE if row["kind"] == "converse" else INVOKE
    return dialect.decoder(request(client, body), step(AMAZON, row["model"]), lambda usage: Cost(1_500))


def told(row: Row, client: Format) -> dict[str, Any]:
    """What the client has in the end."""
    out = drain(decoder(row, client), [corpus.body(row)])
    if client is Format.CHAT:
        if row["streaming"]:
            assert out.endswith(b"data: [DONE]\n\n"), row["id"]
            reply = grown_chat(out)
            message, reason = reply["message"], reply["finish_reason"]
        else:
            reply = json.loads(out)
            ChatCompletion.model_validate(reply)
            message, reason = reply["choices"][0]["message"], reply["choices"][0]["finish_reason"]
        return {
            "text": message["content"] or "",
            "thought": message.get("reasoning_content") or "",
            "signed": [block.get("signature") for block in message.get("thinking_blocks") or ()],
            "calls": calls_of_chat(message),
            "finish": STOP_REASONS.get(reason, reason),
            "tokens": (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]),
        }
    message = grown_message(out) if row["streaming"] else json.loads(out)
    Message.model_validate(message)
    usage = message["usage"]
    cached = (usage.get("cache_read_input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0)
    thoughts = [block for block in message["content"] if block["type"] == "thinking"]
    return {
        "text": texts(message, "text", "text"),
        "thought": texts(message, "thinking", "thinking"),
        "signed": [block["signature"] for block in thoughts if block["signature"]],
        "calls": calls_of_message(message),
        "finish": message["stop_reason"],
        "tokens": (usage["input_tokens"] + cached, usage["output_tokens"]),
    }


@cache
def conversed(id_: str) -> dict[str, Any]:
    """What a recorded reply of Converse says, by a way of reading of our own."""
    row = next(row for row in good("converse") if row["id"] == id_)
    said: dict[str, Any] = {"text": "", "thought": "", "signed": [], "calls": []}
    if row["streaming"]:
        usage, reason = _from_events(row, said)
    else:
        usage, reason = row["response_body"]["usage"], row["response_body"]["stopReason"]
        for block in row["response_body"]["output"]["message"]["content"]:
            _add_block(block, said)
    cached = usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)
    finish = STOP_REASONS[STOPS[reason]]
    return {**said, "finish": finish, "tokens": (usage["inputTokens"] + cached, usage["outputTokens"]), "usage": usage}


def _add_block(block: Mapping[str, Any], said: dict[str, Any]) -> None:
    said["text"] += block.get("text", "")
    thought = block.get("reasoningContent", {}).get("reasoningText", {})
    said["thought"] += thought.get("text", "")
    said["signed"] += [thought["signature"]] if "signature" in thought else []
    said["text"] += "".join(part["text"] for part in block.get("citationsContent", {}).get("content", ()))
    call = block.get("toolUse")
    if call and call.get("type") != "server_tool_use":
        said["calls"].append((call["toolUseId"], call["name"], call["input"]))


def _from_events(row: Row, said: dict[str, Any]) -> tuple[Mapping[str, Any], str]:
    grown: dict[int, list[Any]] = {}
    usage, reason = {}, ""
    for payload in payloads(corpus.body(row)):
        delta, at = payload.get("delta", {}), payload.get("contentBlockIndex", 0)
        call = payload.get("start", {}).get("toolUse")
        if call and call.get("type") != "server_tool_use":
            grown[at] = [call["toolUseId"], call["name"], ""]
        said["text"] += delta.get("text", "")
        said["thought"] += delta.get("reasoningContent", {}).get("text", "")
        if "signature" in delta.get("reasoningContent", {}):
            said["signed"].append(delta["reasoningContent"]["signature"])
        if at in grown:
            grown[at][2] += delta.get("toolUse", {}).get("input", "")
        usage, reason = payload.get("usage", usage), payload.get("stopReason", reason)
    said["calls"] += [(id_, name, json.loads(text or "{}")) for id_, name, text in grown.values()]
    return usage, reason


def test_enough_is_recorded() -> None:
    assert len(good("converse")) == 191
    assert len(invoked()) == 73
    assert sum(row["response_format"] == "aws-eventstream" for row in good("converse") + good("invoke")) == 85


@pytest.mark.parametrize("client", CLIENTS)
def test_every_recorded_answer_of_converse_is_the_same_answer_to_its_client(client: Format) -> None:
    for row in good("converse"):
        expected = {name: value for name, value in conversed(row["id"]).items() if name != "usage"}
        assert told(row, client) == expected, row["id"]


@pytest.mark.parametrize("client", CLIENTS)
def test_every_recorded_answer_of_invoke_is_the_same_answer_to_its_client(client: Format) -> None:
    for row in invoked():
        said = told(row, client)
        own = _invoked(row)
        assert (said["text"], said["calls"]) == (own["text"], own["calls"]), row["id"]
        assert said["tokens"] == own["tokens"], row["id"]
        assert said["finish"] == STOP_REASONS.get(own["finish"], own["finish"]), row["id"]


def _invoked(row: Row) -> dict[str, Any]:
    """What the maker's own format says, by the events that the recorder decoded."""
    events = [event["decoded"] for event in row.get("response_events", ())] or [row["response_body"]]
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    metrics = next((event[METRICS] for event in reversed(events) if METRICS in event), {})
    if "openai." in row["model"]:
        choice = row["response_body"]["choices"][0] if not row["streaming"] else grown_chat(stream)
        message = choice["message"]
        usage = events[-1].get("usage") or {
            "prompt_tokens": metrics["inputTokenCount"],
            "completion_tokens": metrics["outputTokenCount"],
        }
        tokens = (usage["prompt_tokens"], usage["completion_tokens"])
        calls, text, finish = calls_of_chat(message), message["content"] or "", choice["finish_reason"]
        return {"text": text, "calls": calls, "finish": finish, "tokens": tokens}
    message = grown_message(stream, ours=False) if row["streaming"] else row["response_body"]
    usage = message["usage"]
    if metrics and row["id"] not in MISCOUNTED:
        assert usage["output_tokens"] == metrics["outputTokenCount"], row["id"]
    cached = usage.get("cache_creation_input_tokens", 0) + usage.get("cache_read_input_tokens", 0)
    return {
        "text": texts(message, "text", "text"),
        "calls": calls_of_message(message),
        "finish": message["stop_reason"],
        "tokens": (usage["input_tokens"] + cached, usage["output_tokens"]),
    }


METRICS = "amazon-bedrock-invocationMetrics"


def test_the_buckets_of_every_recorded_usage_sum_to_its_total() -> None:
    for row in good("converse"):
        read = decoder(row, Format.CHAT)
        drain(read, [corpus.body(row)])
        found, block = read.meter.usage, conversed(row["id"])["usage"]
        assert found is not None, row["id"]
        assert found.flags == (), row["id"]
        assert sum(found.tokens.values()) == block["totalTokens"], row["id"]
        assert found.tokens.get(Bucket.INPUT, 0) == block["inputTokens"], row["id"]
        assert found.cached_tokens == block.get("cacheReadInputTokens", 0), row["id"]
        assert found.tokens.get(Bucket.CACHE_WRITE_5M, 0) == block.get("cacheWriteInputTokens", 0), row["id"]
        assert found.reported == block, row["id"]
        assert read.meter.complete, row["id"]


@pytest.mark.parametrize("client", CLIENTS)
def test_every_stream_split_anywhere_is_the_same_stream(client: Format) -> None:
    streams = [row for row in good("converse") + invoked() if row["streaming"]]
    assert len(streams) == 76
    for row in streams:
        data = corpus.body(row)
        whole = drain(decoder(row, client), [data])
        assert drain(decoder(row, client), pieces(data, seed=len(data))) == whole, row["id"]
        if len(data) < 20_000:
            single = [data[at : at + 1] for at in range(len(data))]
            assert drain(decoder(row, client), single) == whole, row["id"]


def every_stream() -> list[Row]:
    return [row for row in good("converse") + good("invoke") if row["response_format"] == "aws-eventstream"]


def test_the_frames_of_every_recorded_stream_are_those_its_recorder_read() -> None:
    for row in every_stream():
        data = corpus.body(row)
        for chunks in ([data], pieces(data, seed=len(data)), [data[at : at + 1] for at in range(len(data))]):
            splitter = Splitter()
            messages = [message for chunk in chunks for message in splitter.feed(chunk)]
            splitter.rest()
            assert len(messages) == len(row["response_events"]), row["id"]
            for message, event in zip(messages, row["response_events"], strict=True):
                assert message.kind == event["headers"][":message-type"]
                assert message.name == event["headers"][":event-type"]
            assert [json.loads(message.payload) for message in messages] == payloads(data)


def test_a_bit_that_flips_anywhere_in_a_recorded_stream_breaks_it() -> None:
    dice = random.Random(11)
    for row in every_stream():
        data = corpus.body(row)
        for at in dice.sample(range(len(data)), 12):
            hurt = bytearray(data)
            hurt[at] ^= 1 << dice.randrange(8)
            for chunks in ([bytes(hurt)], pieces(bytes(hurt), seed=at)):
                splitter = Splitter()
                with pytest.raises(UpstreamBroken):
                    _split(splitter, chunks)


def _split(splitter: Splitter, chunks: Any) -> None:
    for chunk in chunks:
        splitter.feed(chunk)
    splitter.rest()


@pytest.mark.parametrize("client", CLIENTS)
def test_what_came_before_a_damaged_frame_reaches_the_client_and_is_metered(client: Format) -> None:
    for row in [row for row in good("converse") + invoked() if row["streaming"]]:
        data = corpus.body(row)
        last = _starts(data)[-1]
        hurt = data[:last] + data[last : last + 20] + b"?" + data[last + 21 :]
        assert hurt != data
        read = decoder(row, client)
        assert read.feed(hurt)
        with pytest.raises(UpstreamBroken):
            read.finish()
        whole = decoder(row, client)
        drain(whole, [data])
        assert whole.generated().startswith(read.generated()), row["id"]
        assert row["kind"] == "invoke" or read.generated() == whole.generated(), row["id"]
        assert b"error" in read.cut(UpstreamBroken("It broke."))


def payloads(data: bytes) -> list[Any]:
    """What is in the frames; checksums are not looked at."""
    ends = [*_starts(data)[1:], len(data)]
    return [
        json.loads(data[at + 12 + struct.unpack_from("!I", data, at + 4)[0] : end - 4])
        for at, end in zip(_starts(data), ends, strict=True)
    ]


def _starts(data: bytes) -> list[int]:
    at, found = 0, []
    while at < len(data):
        found.append(at)
        at += struct.unpack_from("!I", data, at)[0]
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_that_ends_early_is_broken(client: Format) -> None:
    for row in [row for row in good("converse") if row["streaming"]]:
        data = corpus.body(row)
        for end in (_starts(data)[-2], len(data) - 1, 0):
            read = decoder(row, client)
            read.feed(data[:end])
            with pytest.raises(UpstreamBroken):
                read.finish()


def frame(kind: str, name: str, payload: Mapping[str, Any]) -> bytes:
    """One message as Amazon sends it."""
    labels = {":message-type": kind, f":{kind}-type": name, ":content-type": "application/json"}
    headers = b"".join(
        bytes((len(label),)) + label.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for label, value in labels.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", len(headers) + len(body) + 16, len(headers))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    return prelude + headers + body + struct.pack("!I", zlib.crc32(prelude + headers + body))


@pytest.mark.parametrize("dialect", [CONVERSE, INVOKE], ids=["converse", "invoke"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("name", "leaf"),
    [
        ("throttlingException", UpstreamRateLimited),
        ("serviceUnavailableException", UpstreamOverloaded),
        ("internalServerException", UpstreamFailed),
        ("modelStreamErrorException", UpstreamFailed),
        ("modelTimeoutException", UpstreamTimeout),
        ("validationException", UpstreamRejected),
        ("somethingNewException", UpstreamFailed),
    ],
)
def test_an_exception_within_a_stream_is_the_error_it_says(
    dialect: BedrockConverse | BedrockInvoke, client: Format, name: str, leaf: type[GatewayError]
) -> None:
    data = frame("exception", name, {"message": "It went wrong."})
    place = step(AMAZON, "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
    for chunks in ([data], [data[at : at + 1] for at in range(len(data))]):
        read = dialect.decoder(request(client, {"stream": True}), place, lambda usage: Cost(None))
        with pytest.raises(leaf, match="It went wrong") as caught:
            drain(read, chunks)
        assert type(caught.value) is leaf


def test_an_exception_in_the_middle_is_raised_after_what_came_before() -> None:
    row = next(row for row in good("converse") if row["streaming"] and conversed(row["id"])["text"])
    data = corpus.body(row)
    cut = data[: _starts(data)[-2]] + frame("exception", "throttlingException", {"message": "Slow down."})
    read = decoder(row, Format.CHAT)
    assert conversed(row["id"])["text"] == grown_chat(read.feed(cut))["message"]["content"]
    with pytest.raises(UpstreamRateLimited):
        read.finish()


def test_every_recorded_error_is_a_leaf() -> None:
    kinds: Counter[tuple[int, str]] = Counter()
    rows = corpus.refused("converse") + corpus.refused("invoke")
    for row in rows:
        dialect = CONVERSE if row["kind"] == "converse" else INVOKE
        error = dialect.error(row["response_status"], row["response_headers"], corpus.body(row), AMAZON)
        kinds[row["response_status"], type(error).__name__] += 1
        if isinstance(error, UpstreamRejected):
            assert "URL sources are not supported" in error.message
        if isinstance(error, UpstreamDenied):
            assert "token" not in error.message
    assert kinds == {
        (400, UpstreamDenied.__name__): 1,  # no on-demand throughput
        (400, ContextOverflow.__name__): 1,
        (400, UpstreamRejected.__name__): 1,
        (403, UpstreamDenied.__name__): 9,
        (404, UpstreamDenied.__name__): 1,
        (503, UpstreamOverloaded.__name__): 2,
    }

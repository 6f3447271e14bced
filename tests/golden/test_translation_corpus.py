"""Recorded replies of real providers, told in the other format: what was said, called and counted stays the same.

The recordings stay where they are (`TOLLGATE_DATA`, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import gzip
import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from anthropic.types import Message
from grown import calls_of_chat, calls_of_message, events, grown_chat, grown_message, texts
from openai.types.chat import ChatCompletion

from gateway.dialects.translate import Translator
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Cost, Deployment, Estimate, Format, Key, Provider, Request

pytestmark = pytest.mark.corpus

DATA = Path(os.environ.get("TOLLGATE_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
CORPUS = DATA / "wire_dev.jsonl.gz"

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
STOP_REASONS = {
    "stop": "end_turn",
    "eos": "end_turn",
    None: "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "tool_call": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


@cache
def recorded(kind: str, *, stream: bool) -> list[dict[str, Any]]:
    if not CORPUS.exists():
        pytest.skip(f"no recorded traffic at {CORPUS}")
    with gzip.open(CORPUS, "rt") as lines:
        rows = [json.loads(line) for line in lines if f'"kind": "{kind}"' in line or f'"kind":"{kind}"' in line]
    wanted = "sse" if stream else "json"
    ok = [row for row in rows if row["response_status"] == 200 and row["response_format"] == wanted]
    assert ok
    return ok


def translator(row: dict[str, Any], client: Format, provider: Format, *, stream: bool) -> Translator:
    key = Key("k", "acme", "test", b"")
    body = {"model": "m", "stream": stream, "stream_options": {"include_usage": True}}
    request = Request("r1", client, b"", body, "m", stream, 1_700_000_000.0, key)
    step = Step(Deployment("d", Provider(row["provider"], "any"), "m"), Estimate(7, 9), 100, 50, 0.0)
    return Translator(request, step, lambda usage: Cost(1_500), provider)


def told(row: dict[str, Any], client: Format, provider: Format) -> Any:
    """The whole reply in the client's format."""
    decoder = translator(row, client, provider, stream=False)
    assert decoder.feed(orjson.dumps(row["response_body"])) == b""
    reply = orjson.loads(decoder.finish())
    assert decoder.meter.complete
    return reply


def wire(row: dict[str, Any]) -> bytes:
    return b"".join(event.encode() + b"\n\n" for event in row["response_events"])


def streamed(row: dict[str, Any], client: Format, provider: Format, cuts: random.Random | None = None) -> bytes:
    """The stream in the client's format, fed whole or in random pieces; an error cuts it."""
    decoder = translator(row, client, provider, stream=True)
    out, left = [], wire(row)
    try:
        while left:
            size = cuts.randint(1, 40) if cuts else len(left)
            out.append(decoder.feed(left[:size]))
            left = left[size:]
        out.append(decoder.finish())
    except GatewayError as error:
        out.append(decoder.cut(error))
    return b"".join(out)


def test_every_recorded_message_is_the_same_answer_in_chat() -> None:
    for row in recorded("messages", stream=False):
        message = row["response_body"]
        reply = told(row, Format.CHAT, Format.MESSAGES)
        ChatCompletion.model_validate(reply)
        choice, usage = reply["choices"][0], message["usage"]
        said = choice["message"]
        assert (said["content"] or "") == texts(message, "text", "text"), row["id"]
        assert said.get("reasoning_content", "") == texts(message, "thinking", "thinking"), row["id"]
        assert calls_of_chat(said) == calls_of_message(message), row["id"]
        assert choice["finish_reason"] == FINISHES[message["stop_reason"]], row["id"]
        assert reply["model"] == message["model"], row["id"]
        assert reply["id"] == message["id"], row["id"]
        if not usage.get("iterations"):
            cached = usage.get("cache_read_input_tokens") or 0
            written = usage.get("cache_creation_input_tokens") or 0
            assert reply["usage"]["prompt_tokens"] == usage["input_tokens"] + cached + written, row["id"]
            assert reply["usage"]["completion_tokens"] == usage["output_tokens"], row["id"]
            assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == cached, row["id"]
        assert reply["usage"]["cost"] == 0.0000015


def test_every_recorded_chat_reply_is_the_same_answer_as_a_message() -> None:
    for row in recorded("chat", stream=False):
        body = row["response_body"]
        if body.get("error") or any(choice.get("error") for choice in body["choices"]):
            with pytest.raises(GatewayError):
                told(row, Format.MESSAGES, Format.CHAT)
            continue
        message = told(row, Format.MESSAGES, Format.CHAT)
        Message.model_validate(message)
        choice = body["choices"][0]
        said = choice.get("message") or choice["delta"]
        content = said.get("content") or ""
        refusal = said.get("refusal") or ""
        if isinstance(content, str):
            assert texts(message, "text", "text") == content + refusal, row["id"]
            thought = said.get("reasoning_content") or said.get("reasoning") or ""
            assert texts(message, "thinking", "thinking") == thought, row["id"]
        if not said.get("function_call"):
            assert calls_of_message(message) == calls_of_chat(said), row["id"]
        finish = choice.get("finish_reason") or ("length" if choice.get("finish_details") else None)
        assert message["stop_reason"] == ("refusal" if refusal else STOP_REASONS[finish]), row["id"]


def test_every_recorded_chat_usage_is_the_same_total_in_a_message() -> None:
    counted = 0
    for row in recorded("chat", stream=False):
        usage = row["response_body"].get("usage") or {}
        if row["provider"] != "openai" or usage.get("completion_tokens") is None:
            continue
        counted += 1
        message = told(row, Format.MESSAGES, Format.CHAT)["usage"]
        whole = message["input_tokens"] + message["cache_read_input_tokens"] + message["cache_creation_input_tokens"]
        assert whole == usage["prompt_tokens"], row["id"]
        assert message["output_tokens"] == usage["completion_tokens"], row["id"]
    assert counted


@pytest.mark.parametrize(
    ("client", "provider"), [(Format.CHAT, Format.MESSAGES), (Format.MESSAGES, Format.CHAT)], ids=str
)
def test_a_stream_split_anywhere_is_the_same_stream(client: Format, provider: Format) -> None:
    cuts = random.Random(7)
    rows = recorded(provider, stream=True)
    for row in rows if len(rows) < 250 else cuts.sample(rows, 250):
        if len(wire(row)) < 400_000:
            assert streamed(row, client, provider, cuts) == streamed(row, client, provider), row["id"]


def test_every_recorded_message_stream_grows_into_the_same_answer_in_chat() -> None:
    for row in recorded("messages", stream=True):
        if any('"type":"error"' in event.replace(": ", ":")[:80] for event in row["response_events"]):
            continue
        message = grown_message(wire(row), ours=False)
        stream = streamed(row, Format.CHAT, Format.MESSAGES)
        assert stream.endswith(b"data: [DONE]\n\n"), row["id"]
        reply = grown_chat(stream)
        said = reply["message"]
        assert said["content"] == texts(message, "text", "text"), row["id"]
        assert said["reasoning_content"] == texts(message, "thinking", "thinking"), row["id"]
        assert calls_of_chat(said) == calls_of_message(message), row["id"]
        assert reply["finish_reason"] == FINISHES[message["stop_reason"]], row["id"]
        assert reply["usage"]["completion_tokens"] == message["usage"]["output_tokens"] or "iterations" in str(message)
        signed = [b for b in message["content"] if b["type"] in ("thinking", "redacted_thinking")]
        assert said.get("thinking_blocks", []) == [b for b in signed if b.get("signature") or b.get("data")], row["id"]


def test_every_recorded_chat_stream_grows_into_the_same_answer_as_a_message() -> None:
    broken = 0
    for row in recorded("chat", stream=True):
        chunks = [chunk for chunk in events(wire(row)) if isinstance(chunk, dict)]
        stream = streamed(row, Format.MESSAGES, Format.CHAT)
        if b"event: message_stop" not in stream:
            broken += 1
            assert stream.endswith(b"}}\n\n"), row["id"]
            assert b"event: error" in stream, row["id"]
            continue
        message = grown_message(stream)
        deltas = [
            choice.get("delta") or choice.get("message") or {}
            for chunk in chunks
            for choice in chunk.get("choices") or []
            if choice.get("index", 0) == 0
        ]
        said = "".join(d["content"] for d in deltas if isinstance(d.get("content"), str))
        said += "".join(d.get("refusal") or "" for d in deltas)
        if not any(isinstance(d.get("content"), list) for d in deltas):
            assert texts(message, "text", "text") == said, row["id"]
        text = "".join(c["function"].get("arguments") or "" for d in deltas for c in d.get("tool_calls") or [])
        if text:
            written = "".join(
                event["delta"]["partial_json"]
                for event in events(stream)
                if event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta"
            )
            assert written == text, row["id"]
            assert calls_of_message(message), row["id"]
    assert broken < 30

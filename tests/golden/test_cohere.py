"""Cohere's Chat v2: every recorded reply, as clients of other formats get it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import corpus
import pytest
from anthropic.types import Message
from corpus import Row, drain, pieces, request, step
from grown import calls_of_chat, calls_of_message, grown_chat, grown_message, texts
from openai.types.chat import ChatCompletion

from gateway.dialects.base import Decoder
from gateway.dialects.cohere_chat import CohereChat
from gateway.errors import ContextOverflow, UpstreamBroken, UpstreamDenied, UpstreamFailed
from gateway.types import Bucket, Cost, Format, Provider

pytestmark = pytest.mark.corpus

DIALECT = CohereChat(clock=lambda: 1_754_667_600.0)
COHERE = Provider("cohere", "cohere", "https://api.cohere.com", "secret-key")
CLIENTS = [Format.CHAT, Format.MESSAGES]

STOPS = {"COMPLETE": "end_turn", "STOP_SEQUENCE": "stop_sequence", "MAX_TOKENS": "max_tokens", "TOOL_CALL": "tool_use"}
CHAT_STOPS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}

V1 = {"a31521ff6c2c918e", "07aa9e2568175251", "04a810501c1be670"}
"""Of the API before this one, /v1/chat."""


def answers() -> list[Row]:
    rows = [row for row in corpus.rows("native_chat") if row["provider"] == "cohere" and row["id"] not in V1]
    return [row for row in rows if row["response_status"] == 200]


def events(row: Row) -> list[Mapping[str, Any]]:
    return [json.loads(event[event.index("{") :]) for event in row["response_events"] if "{" in event]


def said(row: Row) -> dict[str, Any]:
    """What a recorded reply says, by a way of reading of our own."""
    if not row["streaming"]:
        body = row["response_body"]
        message = body["message"]
        blocks = message.get("content") or []
        thought = (message.get("tool_plan") or "") + "".join(block.get("thinking", "") for block in blocks)
        text = "".join(block.get("text", "") for block in blocks)
        calls = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
        return _expected(text, thought, calls, body)
    text, thought, grown = "", "", []
    for event in events(row):
        message = event.get("delta", {}).get("message", {})
        content, call = message.get("content") or {}, message.get("tool_calls") or {}
        if event["type"] in ("content-start", "content-delta"):
            text, thought = text + content.get("text", ""), thought + content.get("thinking", "")
        if event["type"] == "tool-plan-delta":
            thought += message["tool_plan"]
        if event["type"] == "tool-call-start":
            grown.append([call["id"], call["function"]["name"], call["function"]["arguments"]])
        if event["type"] == "tool-call-delta":
            grown[-1][2] += call["function"]["arguments"]
    return _expected(text, thought, [(id_, name, written) for id_, name, written in grown], events(row)[-1]["delta"])


def _expected(text: str, thought: str, calls: list[tuple[str, str, str]], end: Mapping[str, Any]) -> dict[str, Any]:
    billed = end["usage"]["billed_units"]
    return {
        "text": text,
        "thought": thought,
        "calls": [(id_, name, json.loads(written or "{}")) for id_, name, written in calls],
        "finish": STOPS[end["finish_reason"]],
        "tokens": (billed["input_tokens"], billed["output_tokens"]),
        "usage": end["usage"],
    }


def decoder(row: Row, client: Format) -> Decoder:
    body = {"stream": row["streaming"], "stream_options": {"include_usage": True}}
    return DIALECT.decoder(request(client, body), step(COHERE, row["model"]), lambda usage: Cost(1_500))


def told(row: Row, client: Format) -> dict[str, Any]:
    """What the client has in the end."""
    out = drain(decoder(row, client), [corpus.body(row)])
    if client is Format.CHAT:
        reply = grown_chat(out) if row["streaming"] else json.loads(out)
        if not row["streaming"]:
            ChatCompletion.model_validate(reply)
            reply |= reply["choices"][0]
        message, usage = reply["message"], reply["usage"]
        return {
            "text": message["content"] or "",
            "thought": message.get("reasoning_content") or "",
            "calls": calls_of_chat(message),
            "finish": reply["finish_reason"],
            "tokens": (usage["prompt_tokens"], usage["completion_tokens"]),
        }
    message = grown_message(out) if row["streaming"] else json.loads(out)
    Message.model_validate(message)
    return {
        "text": texts(message, "text", "text"),
        "thought": texts(message, "thinking", "thinking"),
        "calls": calls_of_message(message),
        "finish": message["stop_reason"],
        "tokens": (message["usage"]["input_tokens"], message["usage"]["output_tokens"]),
    }


def test_enough_is_recorded() -> None:
    assert len(answers()) == 95
    assert sum(row["streaming"] for row in answers()) == 25


@pytest.mark.parametrize("client", CLIENTS)
def test_every_recorded_answer_is_the_same_answer_to_its_client(client: Format) -> None:
    for row in answers():
        expected = {name: value for name, value in said(row).items() if name != "usage"}
        if client is Format.CHAT:
            expected["finish"] = CHAT_STOPS[expected["finish"]]
        assert told(row, client) == expected, row["id"]


def test_what_is_billed_is_counted_and_what_was_counted_is_kept() -> None:
    for row in answers():
        read = decoder(row, Format.CHAT)
        drain(read, [corpus.body(row)])
        found, block = read.meter.usage, said(row)["usage"]
        assert found is not None, row["id"]
        assert found.flags == (), row["id"]
        assert found.input_tokens == block["billed_units"]["input_tokens"], row["id"]
        assert found.output_tokens == block["billed_units"]["output_tokens"], row["id"]
        assert found.tokens.get(Bucket.REASONING, 0) == block["tokens"].get("reasoning_tokens", 0), row["id"]
        assert found.cached_tokens == 0
        assert found.reported == block, row["id"]
        assert read.meter.complete, row["id"]


@pytest.mark.parametrize("client", CLIENTS)
def test_every_stream_split_anywhere_is_the_same_stream(client: Format) -> None:
    for row in [row for row in answers() if row["streaming"]]:
        data = corpus.body(row)
        whole = drain(decoder(row, client), [data])
        assert drain(decoder(row, client), pieces(data, seed=len(data))) == whole, row["id"]
        if len(data) < 30_000:
            assert drain(decoder(row, client), [data[at : at + 1] for at in range(len(data))]) == whole, row["id"]


def test_citations_reach_both_clients() -> None:
    cited = [row for row in answers() if "citation" in json.dumps(row.get("response_events") or row["response_body"])]
    chat = message = 0
    for row in cited:
        out = drain(decoder(row, Format.CHAT), [corpus.body(row)])
        chat += b'"citations"' in out or b'"annotations"' in out
        message += b"web_search_result_location" in drain(decoder(row, Format.MESSAGES), [corpus.body(row)])
    assert (chat, message) == (17, 17)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_without_its_end_is_broken(client: Format) -> None:
    row = next(row for row in answers() if row["streaming"])
    data = corpus.body(row)
    for end in (data.index(b"event: message-end"), data.index(b"event: message-end") + 60, 0):
        read = decoder(row, client)
        read.feed(data[:end])
        with pytest.raises(UpstreamBroken):
            read.finish()


def test_a_generation_that_failed_is_an_error_and_is_metered() -> None:
    row = next(row for row in answers() if row["streaming"])
    data = corpus.body(row).replace(b'"finish_reason":"COMPLETE"', b'"finish_reason":"ERROR"')
    read = decoder(row, Format.CHAT)
    read.feed(data)
    with pytest.raises(UpstreamFailed):
        read.finish()
    assert read.meter.usage is not None
    assert not read.meter.complete


def test_every_recorded_error_is_a_leaf() -> None:
    kinds: Counter[tuple[int, str]] = Counter()
    for row in [row for row in corpus.refused("native_chat") if row["provider"] == "cohere"]:
        error = DIALECT.error(row["response_status"], row["response_headers"], corpus.body(row), COHERE)
        kinds[row["response_status"], type(error).__name__] += 1
    denied = UpstreamDenied.__name__
    assert kinds == {(404, denied): 1, (401, denied): 1, (400, ContextOverflow.__name__): 1}

"""Ollama's own chat: every recorded reply, as clients of other formats get it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import corpus
import pytest
from anthropic.types import Message
from corpus import Row, drain, pieces, request, step
from grown import calls_of_chat, calls_of_message, grown_chat, grown_message, texts
from openai.types.chat import ChatCompletion

from gateway.dialects.base import Decoder
from gateway.dialects.ollama_chat import OllamaChat
from gateway.errors import UpstreamBroken, UpstreamDenied, UpstreamFailed
from gateway.types import Bucket, Cost, Format, Provider

pytestmark = pytest.mark.corpus

DIALECT = OllamaChat(clock=lambda: 1_754_667_600.0)
OLLAMA = Provider("ollama", "ollama", "http://127.0.0.1:11434")
CLIENTS = [Format.CHAT, Format.MESSAGES]
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def answers() -> list[Row]:
    rows = [row for row in corpus.rows("native_chat") if row["provider"] == "ollama"]
    return [row for row in rows if row["response_status"] == 200]


def lines(row: Row) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in row["response_events"]] if row["streaming"] else [row["response_body"]]


def said(row: Row, client: Format) -> dict[str, Any]:
    """What a recorded reply says, by a way of reading of our own."""
    messages = [line["message"] for line in lines(row)]
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    last = lines(row)[-1]
    finish = "tool_calls" if calls and last["done_reason"] == "stop" else last["done_reason"]
    return {
        "text": "".join(message["content"] for message in messages),
        "thought": "".join(message.get("thinking", "") for message in messages),
        "calls": [(call["function"]["name"], call["function"]["arguments"]) for call in calls],
        "finish": finish if client is Format.CHAT else STOP_REASONS[finish],
        "tokens": (last["prompt_eval_count"], last["eval_count"]),
    }


def decoder(row: Row, client: Format) -> Decoder:
    body = {"stream": row["streaming"], "stream_options": {"include_usage": True}}
    return DIALECT.decoder(request(client, body), step(OLLAMA, row["model"]), lambda usage: Cost(1_500))


def told(row: Row, client: Format) -> tuple[dict[str, Any], list[str]]:
    """What the client has in the end, and the ids of the calls."""
    out = drain(decoder(row, client), [corpus.body(row)])
    if client is Format.CHAT:
        reply = grown_chat(out) if row["streaming"] else json.loads(out)
        if not row["streaming"]:
            ChatCompletion.model_validate(reply)
            reply |= reply["choices"][0]
        message, usage, calls = reply["message"], reply["usage"], calls_of_chat(reply["message"])
        text, thought = message["content"] or "", message.get("reasoning_content") or ""
        finish, tokens = reply["finish_reason"], (usage["prompt_tokens"], usage["completion_tokens"])
    else:
        message = grown_message(out) if row["streaming"] else json.loads(out)
        Message.model_validate(message)
        usage, calls = message["usage"], calls_of_message(message)
        text, thought = texts(message, "text", "text"), texts(message, "thinking", "thinking")
        finish, tokens = message["stop_reason"], (usage["input_tokens"], usage["output_tokens"])
    named = [(name, arguments) for _, name, arguments in calls]
    found = {"text": text, "thought": thought, "calls": named, "finish": finish, "tokens": tokens}
    return found, [id_ for id_, _, _ in calls]


def test_enough_is_recorded() -> None:
    assert len(answers()) == 54
    assert sum(row["streaming"] for row in answers()) == 29


@pytest.mark.parametrize("client", CLIENTS)
def test_every_recorded_answer_is_the_same_answer_to_its_client(client: Format) -> None:
    for row in answers():
        found, ids = told(row, client)
        assert found == said(row, client), row["id"]
        assert all(ids), row["id"]
        assert len(set(ids)) == len(ids), row["id"]


def test_the_counts_are_the_usage() -> None:
    for row in answers():
        read = decoder(row, Format.CHAT)
        drain(read, [corpus.body(row)])
        found, last = read.meter.usage, lines(row)[-1]
        assert found is not None, row["id"]
        assert found.tokens == {Bucket.INPUT: last["prompt_eval_count"], Bucket.OUTPUT: last["eval_count"]}, row["id"]
        assert found.reported == {name: last[name] for name in ("prompt_eval_count", "eval_count")}, row["id"]
        assert (found.flags, read.meter.complete, read.meter.response_model) == ((), True, last["model"]), row["id"]


@pytest.mark.parametrize("client", CLIENTS)
def test_every_stream_split_anywhere_is_the_same_stream(client: Format) -> None:
    for row in [row for row in answers() if row["streaming"]]:
        data = corpus.body(row)
        whole = drain(decoder(row, client), [data])
        assert drain(decoder(row, client), pieces(data, seed=len(data))) == whole, row["id"]
        if len(data) < 30_000:
            assert drain(decoder(row, client), [data[at : at + 1] for at in range(len(data))]) == whole, row["id"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_without_its_last_line_is_broken(client: Format) -> None:
    row = next(row for row in answers() if row["streaming"])
    data = corpus.body(row)
    for end in (data.rindex(b"\n", 0, -1) + 1, len(data) - 9, 0):
        read = decoder(row, client)
        read.feed(data[:end])
        with pytest.raises(UpstreamBroken):
            read.finish()


def test_a_last_line_without_its_end_is_read() -> None:
    row = next(row for row in answers() if row["streaming"])
    assert drain(decoder(row, Format.CHAT), [corpus.body(row)[:-1]]) == drain(
        decoder(row, Format.CHAT), [corpus.body(row)]
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_an_error_in_the_middle_is_raised_after_what_came_before(client: Format) -> None:
    row = next(row for row in answers() if row["streaming"])
    data = corpus.body(row)
    read = decoder(row, client)
    assert read.feed(data[: data.index(b"\n", 1_000) + 1] + b'{"error":"the runner has stopped"}\n')
    with pytest.raises(UpstreamFailed, match="the runner has stopped"):
        read.finish()


def test_a_model_that_is_not_there_is_ours_to_know() -> None:
    error = DIALECT.error(404, {}, b'{"error":"model \'llama9\' not found"}', OLLAMA)
    assert type(error) is UpstreamDenied

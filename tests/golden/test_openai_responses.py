"""OpenAI Responses on recorded traffic: relayed, metered, and told in the other formats."""

from __future__ import annotations

import json
from typing import Any

import corpus
import orjson
import pytest
from corpus import Row, body, drain, pieces, request, step
from openai.types.responses import Response

from gateway import sse
from gateway.dialects import stored
from gateway.dialects.base import Decoder
from gateway.dialects.codec import Heading
from gateway.dialects.deltas import fold
from gateway.dialects.openai_responses import OpenAIResponses
from gateway.dialects.stored import Stored
from gateway.dialects.translate import CODECS
from gateway.errors import GatewayError, InvalidRequest, UnsupportedField, UpstreamDenied, UpstreamRejected
from gateway.types import Bucket, Cost, Format, Provider, Tenant, Usage

pytestmark = pytest.mark.corpus

DIALECT = OpenAIResponses(clock=lambda: 1_754_667_600.0)
KIND = "responses"
EMAIL = "<EMAIL>"
"""Taken out of the last event of a few recordings, while their deltas still spell it."""


def streams() -> list[Row]:
    return [row for row in corpus.streamed(KIND) if EMAIL not in said(final(row))[0]]


def provider(row: Row) -> Provider:
    return Provider(row["provider"], "openai_responses", "https://p.example/v1", "secret-key")


def decoder(row: Row, format_: Format = Format.RESPONSES, *, stream: bool) -> Decoder:
    asked = {"stream": stream, "stream_options": {"include_usage": True}}
    return DIALECT.decoder(request(format_, asked), step(provider(row)), lambda usage: Cost(1_500))


def final(row: Row) -> dict[str, Any]:
    """The whole response, read our own way."""
    if "response_body" in row:
        return dict(row["response_body"])
    found = {}
    for event in row["response_events"]:
        for line in event.splitlines():
            if line.startswith("data: {") and '"response"' in line:
                found = json.loads(line[6:]).get("response") or found
    if not found["output"]:  # told in the events alone
        found["output"] = [event["item"] for event in events(body(row)) if event["type"] == "response.output_item.done"]
    return found


def said(response: dict[str, Any]) -> tuple[str, list[tuple[str, str, Any]]]:
    texts, calls = [], []
    for item in response["output"]:
        if item["type"] == "message":
            texts += [part.get("text") or part.get("refusal") or "" for part in item["content"]]
        if item["type"] == "function_call":
            calls.append((item["call_id"], item["name"], item["arguments"]))
    return "".join(texts), calls


def events(data: bytes) -> list[dict[str, Any]]:
    splitter = sse.Splitter()
    found = [sse.parse(raw).data for raw in [*splitter.feed(data), splitter.rest()]]
    return [json.loads(each) for each in found if each and each != b"[DONE]"]


def check_usage(row: Row, usage: Usage | None) -> None:
    block = final(row)["usage"]
    assert usage is not None
    assert usage.input_tokens == block["input_tokens"]
    assert usage.output_tokens == block["output_tokens"]
    assert usage.cached_tokens == (block.get("input_tokens_details") or {}).get("cached_tokens", 0)
    reasoning = (block.get("output_tokens_details") or {}).get("reasoning_tokens", 0)
    assert usage.tokens.get(Bucket.REASONING, 0) == min(reasoning, block["output_tokens"])
    if row.get("provider_reported_cost_usd") and row["provider"] == "xai":
        assert usage.reported_cost == pytest.approx(row["provider_reported_cost_usd"] * 1e9, abs=1)


def test_every_whole_reply_goes_on_as_it_came_but_for_an_id_that_names_its_place() -> None:
    rows = corpus.whole(KIND)
    for row in rows:
        reader = decoder(row, stream=False)
        told = json.loads(drain(reader, [body(row)]))
        came = row["response_body"]
        if came.get("store") is not False:
            assert stored.read(told["id"], "acme") == Stored("d", came["id"])
            told["id"] = came["id"]
        assert told == came, row["id"]
        check_usage(row, reader.meter.usage)
        assert reader.meter.complete
        assert not reader.meter.pending
    assert len(rows) > 1000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_stream_goes_on_event_by_event_however_it_is_split(seed: int) -> None:
    rows = corpus.streamed(KIND)
    for row in rows:
        reader = decoder(row, stream=True)
        data = body(row)
        told = events(drain(reader, pieces(data, seed) if seed else [data]))
        came = events(data)
        assert [event["type"] for event in told] == [event["type"] for event in came], row["id"]
        for out, into in zip(told, came, strict=True):
            if "response" in into:
                out, into = out["response"], into["response"]
                if into.get("store") is not False:
                    assert out.pop("id") != into.pop("id")
                if out.get("usage"):
                    assert out["usage"].pop("cost") == 0.0000015
                    into["usage"].pop("cost", None)
            assert out == into, row["id"]
        check_usage(row, reader.meter.usage)
        assert reader.meter.complete
    assert len(rows) > 500


def test_a_stream_in_single_bytes_says_the_same() -> None:
    for row in corpus.streamed(KIND)[::40]:
        data = body(row)
        at_once = drain(decoder(row, stream=True), [data])
        assert drain(decoder(row, stream=True), [data[i : i + 1] for i in range(len(data))]) == at_once


def chat_said(message: dict[str, Any]) -> tuple[str, list[tuple[str, str, Any]]]:
    calls = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ()]
    return (message.get("content") or "") + (message.get("refusal") or ""), calls


def messages_said(message: dict[str, Any]) -> tuple[str, list[tuple[str, str, Any]]]:
    texts = [block["text"] for block in message["content"] if block["type"] == "text"]
    calls = [(b["id"], b["name"], b["input"]) for b in message["content"] if b["type"] == "tool_use"]
    return "".join(texts), calls


def parsed(calls: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    return [(id_, name, json.loads(arguments or "{}")) for id_, name, arguments in calls]


def assembled(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a chat stream builds."""
    message: dict[str, Any] = {"content": "", "refusal": "", "tool_calls": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["refusal"] += delta.get("refusal") or ""
            for call in delta.get("tool_calls") or ():
                if "id" in call:
                    message["tool_calls"].append({"id": call["id"], "function": dict(call["function"])})
                else:
                    message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            message["finish_reason"] = choice["finish_reason"] or message.get("finish_reason")
    return message


def finish(response: dict[str, Any], calls: list[Any]) -> str:
    if response["status"] == "incomplete":
        return "length"
    return "tool_calls" if calls else "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_every_reply_says_the_same_to_a_chat_client(stream: bool) -> None:
    for row in streams() if stream else corpus.whole(KIND):
        reader = decoder(row, Format.CHAT, stream=stream)
        out = drain(reader, pieces(body(row), 7))
        if stream:
            chunks = events(out)
            told, usage = assembled(chunks), chunks[-1]["usage"]
            reason = told["finish_reason"]
        else:
            whole = json.loads(out)
            told, usage, reason = whole["choices"][0]["message"], whole["usage"], whole["choices"][0]["finish_reason"]
        came = final(row)
        text, calls = said(came)
        assert chat_said(told) == (text, calls), row["id"]
        assert reason == finish(came, calls), row["id"]
        assert usage["prompt_tokens"] == came["usage"]["input_tokens"]
        assert usage["completion_tokens"] == came["usage"]["output_tokens"]
        check_usage(row, reader.meter.usage)


def test_every_reply_says_the_same_to_a_messages_client() -> None:
    for row in corpus.whole(KIND):
        told = json.loads(drain(decoder(row, Format.MESSAGES, stream=False), [body(row)]))
        text, calls = said(final(row))
        assert messages_said(told) == (text, parsed(calls)), row["id"]
        used = told["usage"]
        total = (
            used["input_tokens"] + used.get("cache_read_input_tokens", 0) + used.get("cache_creation_input_tokens", 0)
        )
        assert total == final(row)["usage"]["input_tokens"]


def test_every_stream_is_told_to_a_messages_client() -> None:
    for row in streams():
        out = events(drain(decoder(row, Format.MESSAGES, stream=True), pieces(body(row), 3)))
        text = "".join(
            event["delta"]["text"]
            for event in out
            if event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta"
        )
        assert text == said(final(row))[0], row["id"]
        assert out[-1]["type"] == "message_stop"


def test_every_reply_survives_the_hub_and_back() -> None:
    """Read as a provider's and written as a client's of the same format: what was said stays the same."""
    codec = CODECS[Format.RESPONSES]
    for row in corpus.whole(KIND) + corpus.streamed(KIND):
        came = final(row)
        reader = codec.reader(provider(row), 0.0)
        reply = fold(reader.read_whole(orjson.dumps(came)))
        told = Response.model_validate_json(codec.write_reply(reply, Heading("1", "m", 1), None))
        whole = told.model_dump()
        text, calls = said(came)
        assert (text, calls) == said(whole), row["id"]
        sealed = [item.get("encrypted_content") for item in came["output"] if item["type"] == "reasoning"]
        again = [item.get("encrypted_content") for item in whole["output"] if item["type"] == "reasoning"]
        assert [each for each in again if each] == [each for each in sealed if each]


def requests() -> list[Row]:
    return [row for row in corpus.rows(KIND) if isinstance(row["request_body"], dict) and row["response_status"] == 200]


def test_every_recorded_request_is_read_and_can_be_asked_in_any_format() -> None:
    read = refused = 0
    for row in requests():
        conversation = CODECS[Format.RESPONSES].read_request(row["request_body"])
        read += 1
        for format_ in (Format.CHAT, Format.MESSAGES, Format.RESPONSES):
            try:
                CODECS[format_].write_request(conversation, step(provider(row), cap=100), drop_params=True)
            except (UnsupportedField, InvalidRequest):
                refused += 1
    assert read > 1600
    assert refused < 30


def test_what_is_asked_is_asked_again_the_same_through_the_hub() -> None:
    """Recorded requests, read and written: the items a model sees are the same but for what is told in another way."""
    for row in requests():
        before = CODECS[Format.RESPONSES].read_request(row["request_body"])
        written = CODECS[Format.RESPONSES].write_request(before, step(provider(row), "gpt-5.4"), drop_params=True)
        after = CODECS[Format.RESPONSES].read_request(orjson.loads(orjson.dumps(written)))
        assert after.system == before.system, row["id"]
        assert [turn.role for turn in after.turns] == [turn.role for turn in before.turns if _tellable(turn)], row["id"]
        assert [tool.name for tool in after.tools] == [tool.name for tool in before.tools]


def _tellable(turn: Any) -> bool:
    """A thought that its provider cannot prove is not told."""
    return any(getattr(part, "signature", "x") or getattr(part, "encrypted", "") for part in turn.parts)


def test_every_recorded_error_is_a_leaf_with_the_right_status() -> None:
    rows = corpus.refused(KIND)
    for row in rows:
        error = DIALECT.error(row["response_status"], row["response_headers"] or {}, body(row), provider(row))
        assert isinstance(error, GatewayError)
        if row["response_status"] == 401:
            assert isinstance(error, UpstreamDenied), row["id"]
        elif isinstance(error, UpstreamRejected):
            assert error.upstream_status == row["response_status"]
            assert error.message
    assert len(rows) > 50


def test_a_request_goes_out_with_the_model_and_cap_of_its_step_and_every_other_byte_as_it_came() -> None:
    for row in requests()[::20]:
        raw = json.dumps(row["request_body"]).encode()
        asked = request(Format.RESPONSES, {"previous_response_id": None}, raw=raw)
        call = DIALECT.encode(asked, step(provider(row), "gpt-x", cap=77), Tenant("acme"))
        told = json.loads(call.body)
        assert (told.pop("model"), told.pop("max_output_tokens")) == ("gpt-x", 77)
        came = dict(row["request_body"])
        came.pop("model", None)
        came.pop("max_output_tokens", None)
        assert told == came

"""Replies and streams from one format to the other, event by event; errors in them; what compatible providers do."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.conversation import Finish, Text
from gateway.dialects.anthropic_messages_codec.reply_writer import usage_block
from gateway.dialects.codec import Heading
from gateway.dialects.deltas import Finished, Started, TextDelta, fold
from gateway.dialects.translate import CODECS, Translator
from gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
)
from gateway.plan import Step
from gateway.sse import Splitter, event, parse
from gateway.types import Bucket, Cost, Deployment, Estimate, Format, Key, Provider, Request, Usage

CHAT, MESSAGES = Format.CHAT, Format.MESSAGES


def translator(client: Format, *, stream: bool, usage: bool = True, cost: int | None = 1_500) -> Translator:
    provider = MESSAGES if client is CHAT else CHAT
    body = {"stream_options": {"include_usage": usage}}
    request = Request("r1", client, b"", body, "m", stream, 1_700_000_000.0, Key("k", "acme", "test", b""))
    step = Step(Deployment("d", Provider("p", "any"), "upstream-model"), Estimate(7, 9), 100, 50, 0.0)
    return Translator(request, step, lambda _: Cost(cost), provider)


def whole(client: Format, body: Any) -> Any:
    decoder = translator(client, stream=False)
    assert decoder.feed(orjson.dumps(body)) == b""
    return orjson.loads(decoder.finish())


def messages(*events: dict[str, Any]) -> bytes:
    return b"".join(event(orjson.dumps(each), each["type"]) for each in events)


def chunks(*bodies: dict[str, Any], done: bool = True) -> bytes:
    lines = [event(orjson.dumps({"id": "c1", "model": "gpt", **body})) for body in bodies]
    return b"".join([*lines, b"data: [DONE]\n\n" if done else b""])


def delta(*, finish: str | None = None, index: int = 0, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": said, "finish_reason": finish}]}


def streamed(client: Format, stream: bytes, **options: Any) -> list[Any]:
    decoder = translator(client, stream=True, **options)
    out = decoder.feed(stream) + decoder.finish()
    events = [parse(raw) for raw in Splitter().feed(out)]
    return [orjson.loads(each.data) if each.data != b"[DONE]" else "[DONE]" for each in events if each.data]


START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 5, "output_tokens": 1}},
}
STOP: dict[str, Any] = {"type": "message_stop"}


def ended(reason: str = "end_turn", **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9, **usage}}


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    grown = [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
    begun = {"type": "content_block_start", "index": index, "content_block": start}
    return [begun, *grown, {"type": "content_block_stop", "index": index}]


# A message for a chat client

REPLY = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-8",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "It "},
        {
            "type": "text",
            "text": "rains.",
            "citations": [
                {
                    "type": "web_search_result_location",
                    "url": "https://example.org",
                    "title": "Weather",
                    "cited_text": "rain",
                    "encrypted_index": "e",
                },
                {"type": "char_location", "document_index": 0, "cited_text": "wet"},
            ],
        },
        {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "q"}},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, "é"]}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 20,
        "cache_creation_input_tokens": 30,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 15},
    },
}


def test_a_message_is_told_whole_to_a_chat_client() -> None:
    assert whole(CHAT, REPLY) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "claude-opus-4-8",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "It rains.",
                    "refusal": None,
                    "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":[1,"é"]}'}}
                    ],
                    "reasoning_content": "hm",
                    "thinking_blocks": [
                        {"type": "thinking", "thinking": "hm", "signature": "sig"},
                        {"type": "redacted_thinking", "data": "xyz"},
                    ],
                    "provider_blocks": [REPLY["content"][4]],  # type: ignore[index]  # a list, as written above
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {
                                "url": "https://example.org",
                                "title": "Weather",
                                "start_index": 3,
                                "end_index": 9,
                            },
                        }
                    ],
                    "citations": [{"type": "char_location", "document_index": 0, "cited_text": "wet"}],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 60,
            "completion_tokens": 40,
            "total_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 30},
            "completion_tokens_details": {"reasoning_tokens": 15},
            "cost": 0.0000015,
        },
    }


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("a_reason_of_tomorrow", "stop"),
    ],
)
def test_every_stop_reason_has_its_finish_reason(reason: str, finish: str) -> None:
    assert whole(CHAT, REPLY | {"stop_reason": reason})["choices"][0]["finish_reason"] == finish
    said = streamed(CHAT, messages(START, ended(reason), STOP))
    assert [c["choices"][0]["finish_reason"] for c in said if c != "[DONE]" and c["choices"]][-1] == finish


def test_why_a_message_was_refused_is_the_refusal() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "No."}
    reply = whole(CHAT, REPLY | {"content": [], "stop_reason": "refusal", "stop_details": details})
    message = reply["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "No.")
    assert reply["choices"][0]["finish_reason"] == "content_filter"


def test_a_cost_that_is_not_known_is_not_told() -> None:
    decoder = translator(CHAT, stream=False, cost=None)
    decoder.feed(orjson.dumps(REPLY))
    assert "cost" not in orjson.loads(decoder.finish())["usage"]


STREAM = messages(
    START,
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "h"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "signature_delta", "signature": "sig"},
    ),
    {"type": "ping"},
    *block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"}),
    *block(
        2,
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"a"'},
        {"type": "input_json_delta", "partial_json": ":1}"},
    ),
    *block(3, {"type": "tool_use", "id": "t2", "name": "g", "input": {}}),
    ended("tool_use"),
    STOP,
)


def test_a_message_stream_is_told_delta_by_delta_to_a_chat_client() -> None:
    said = streamed(CHAT, STREAM)
    assert said[-1] == "[DONE]"
    assert said[-2]["choices"] == []
    assert said[-2]["usage"]["prompt_tokens"] == 5
    assert said[-2]["usage"]["completion_tokens"] == 9
    assert said[-2]["usage"]["cost"] == 0.0000015
    deltas = [chunk["choices"][0] for chunk in said[:-2]]
    assert [choice["delta"] for choice in deltas] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "sig"}]},
        {"content": "Hi"},
        {"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        {"tool_calls": [{"index": 1, "id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [choice["finish_reason"] for choice in deltas] == [None] * 10 + ["tool_calls"]
    assert {chunk["id"] for chunk in said[:-1]} == {"msg_1"}
    assert all(chunk["usage"] is None for chunk in said[:-2])


def test_a_chat_client_that_did_not_ask_for_usage_sees_none() -> None:
    said = streamed(CHAT, STREAM, usage=False)
    assert said[-1] == "[DONE]"
    assert not [chunk for chunk in said[:-1] if "usage" in chunk or not chunk["choices"]]


def test_citations_in_a_stream_come_when_their_text_has_ended() -> None:
    cited = {"url": "https://example.org", "title": "T", "cited_text": "x", "type": "web_search_result_location"}
    said = streamed(
        CHAT,
        messages(
            START,
            *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "So "}),
            *block(
                1,
                {"type": "text", "text": ""},
                {"type": "citations_delta", "citation": cited},
                {"type": "text_delta", "text": "it"},
                {"type": "text_delta", "text": " is"},
            ),
            ended(),
            STOP,
        ),
    )
    notes = [c["choices"][0]["delta"]["annotations"] for c in said[:-2] if "annotations" in c["choices"][0]["delta"]]
    where = {"url": "https://example.org", "title": "T", "start_index": 3, "end_index": 8}
    assert notes == [[{"type": "url_citation", "url_citation": where}]]


def test_the_meter_knows_what_the_provider_said() -> None:
    decoder = translator(CHAT, stream=True)
    decoder.feed(STREAM)
    decoder.finish()
    meter = decoder.meter
    assert meter.complete
    assert meter.usage is not None
    assert meter.usage.tokens == {Bucket.INPUT: 5, Bucket.OUTPUT: 9}
    assert (meter.response_model, meter.finish_reason) == ("claude", "tool_calls")
    assert decoder.generated() == 'hmHif{"a":1}g{}'


# A chat reply for an Anthropic client

COMPLETION: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "model": "gpt-5.2",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "It rains.",
                "reasoning_content": "hm",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {
                            "url": "https://example.org",
                            "title": "W",
                            "start_index": 3,
                            "end_index": 8,
                        },
                    }
                ],
                "tool_calls": [{"id": "c9", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {
        "prompt_tokens": 60,
        "completion_tokens": 40,
        "total_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 15},
    },
}


def test_a_chat_reply_is_told_whole_to_an_anthropic_client() -> None:
    assert whole(MESSAGES, COMPLETION) == {
        "id": "c1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-5.2",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {
                "type": "text",
                "text": "It rains.",
                "citations": [
                    {
                        "type": "web_search_result_location",
                        "url": "https://example.org",
                        "title": "W",
                        "cited_text": "rains",
                        "encrypted_index": "",
                    }
                ],
            },
            {"type": "tool_use", "id": "c9", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 40,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 20,
            "output_tokens": 40,
            "output_tokens_details": {"thinking_tokens": 15},
            "cost": 0.0000015,
        },
    }


def replied(finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        (None, "end_turn"),
    ],
)
def test_every_finish_reason_has_its_stop_reason(finish: str | None, reason: str) -> None:
    assert whole(MESSAGES, replied(finish, content="x"))["stop_reason"] == reason


def test_a_refusal_is_text_and_the_reason_to_stop() -> None:
    reply = whole(MESSAGES, replied(content=None, refusal="No."))
    assert reply["content"] == [{"type": "text", "text": "No."}]
    assert reply["stop_reason"] == "refusal"
    said = streamed(MESSAGES, chunks(delta(refusal="No."), delta(finish="stop")))
    assert said[-2]["delta"]["stop_reason"] == "refusal"


def test_arguments_cut_short_are_kept_as_the_text_they_are() -> None:
    cut = {"id": "c9", "type": "function", "function": {"name": "f", "arguments": '{"a": "lo'}}
    reply = whole(MESSAGES, replied("length", tool_calls=[cut]))
    assert reply["content"][0]["input"] == {"unparsed_arguments": '{"a": "lo'}


def test_a_chat_stream_is_told_block_by_block_to_an_anthropic_client() -> None:
    tool = {"index": 0, "id": "c9", "type": "function", "function": {"name": "f", "arguments": ""}}
    said = streamed(
        MESSAGES,
        chunks(
            delta(role="assistant", content=""),
            delta(reasoning_content="hm"),
            delta(content="Hi"),
            delta(content="!"),
            delta(tool_calls=[tool]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":1}'}}]),
            delta(finish="tool_calls"),
            {"choices": [], "usage": COMPLETION["usage"]},
        ),
    )
    assert said[0]["message"]["usage"]["input_tokens"] == 7  # as expected before the call
    assert said[0]["message"] | {"usage": None} == {
        "id": "c1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": None,
    }
    expected = [
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm"},
        ),
        *block(
            1,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "Hi"},
            {"type": "text_delta", "text": "!"},
        ),
        *block(
            2,
            {"type": "tool_use", "id": "c9", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"a":1}'},
        ),
    ]
    assert said[1:-2] == expected
    assert said[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert said[-2]["usage"]["input_tokens"] == 40
    assert said[-2]["usage"]["output_tokens"] == 40
    assert said[-2]["usage"]["cost"] == 0.0000015
    assert said[-1] == {"type": "message_stop"}


def calls(said: list[Any]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of every tool call in a message stream."""
    begun = {e["index"]: e["content_block"] for e in said if e["type"] == "content_block_start"}
    text = dict.fromkeys(begun, "")
    for each in said:
        if each["type"] == "content_block_delta":
            text[each["index"]] += each["delta"].get("partial_json", "")
    return [(b["id"], b["name"], text[i]) for i, b in begun.items() if b["type"] == "tool_use"]


def tool(index: int | None, id_: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    placed = {} if index is None else {"index": index}
    return {**placed, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "deltas",
    [
        [[tool(0, "a", "f", '{"x":1}')], [tool(1, "b", "g", "{}")]],
        [[tool(0, "a", "f", "")], [tool(1, "b", "g", "")], [tool(0, None, None, '{"x":1}'), tool(1, None, None, "{}")]],
        [[tool(0, "a", "f", '{"x":1}')], [tool(0, "b", "g", "{}")]],
        [[tool(None, "a", "f", '{"x":1}'), tool(None, "b", "g", "{}")]],
        [[tool(0, "a", "f", '{"x"')], [tool(0, "a", "f", ":1}")], [tool(1, "b", "g", "{}")]],
        [[tool(0, "a", "f", {"x": 1})], [tool(1, "b", "g", {})], [tool(1, "zz", None, "")]],
    ],
    ids=["plain", "interleaved", "one index", "no index", "repeated", "objects"],
)
def test_parallel_calls_are_told_apart_however_a_provider_numbers_them(deltas: list[list[Any]]) -> None:
    said = streamed(MESSAGES, chunks(*(delta(tool_calls=each) for each in deltas), delta(finish="tool_calls")))
    assert calls(said) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_an_anthropic_client_reads_the_first_of_several_answers() -> None:
    many = {"choices": [{"index": i, "delta": {"content": f"a{i}"}, "finish_reason": "stop"} for i in range(2)]}
    said = streamed(MESSAGES, chunks(many))
    texts = [each["delta"]["text"] for each in said if each["type"] == "content_block_delta"]
    assert texts == ["a0"]


def test_usage_in_every_chunk_counts_once() -> None:
    first = delta(content="a") | {"usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}
    last = delta(finish="stop") | {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
    said = streamed(MESSAGES, chunks(first, last, done=False))
    assert said[-2]["usage"]["output_tokens"] == 2


def test_thoughts_signed_by_anthropic_reach_an_anthropic_client_through_a_chat_provider() -> None:
    thinking = [{"type": "thinking", "thinking": "hm", "signature": "sig"}]
    reply = whole(MESSAGES, replied(content="x", reasoning_content="hm", thinking_blocks=thinking))
    assert reply["content"][0] == thinking[0]
    said = streamed(
        MESSAGES, chunks(delta(reasoning_content="hm"), delta(thinking_blocks=thinking), delta(finish="stop"))
    )
    grown = [each["delta"] for each in said if each["type"] == "content_block_delta"]
    assert grown == [
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "signature_delta", "signature": "sig"},
    ]


def test_mistrals_thinking_parts_are_thoughts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "144"},
    ]
    blocks = whole(MESSAGES, replied(content=parts))["content"]
    assert [(b["type"], b.get("thinking") or b["text"]) for b in blocks] == [("thinking", "hm"), ("text", "144")]


def test_several_answers_with_log_probabilities_survive_the_hub_in_chats_format() -> None:
    codec = CODECS[CHAT]
    heading = Heading("r1", "m", 1)
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
    deltas = [
        Started("c1", "gpt"),
        TextDelta("a", 0, logprobs),
        TextDelta("b", 1),
        Finished(Finish.END, None, 0),
        Finished(Finish.LENGTH, None, 1),
    ]
    reply = fold(deltas)
    writer, reader = codec.writer(heading), codec.reader(Provider("p", "any"), 0.0)
    stream = b"".join([*map(writer.write, deltas), writer.end(None, None)])
    grown = fold(found for raw in Splitter().feed(stream) for found in reader.read(parse(raw).data or b""))
    assert grown == reply
    assert [(answer.parts, answer.finish) for answer in reply.answers] == [
        ((Text("a"),), Finish.END),
        ((Text("b"),), Finish.LENGTH),
    ]
    assert reply.answers[0].logprobs == logprobs
    body = codec.write_reply(reply, heading, None)
    assert fold(codec.reader(Provider("p", "any"), 0.0).read_whole(body)) == reply
    assert [choice["logprobs"] for choice in orjson.loads(body)["choices"]] == [logprobs, None]


def test_cache_writes_are_told_by_how_long_they_last() -> None:
    tokens = {
        Bucket.INPUT: 1,
        Bucket.CACHE_READ: 2,
        Bucket.CACHE_WRITE_5M: 4,
        Bucket.CACHE_WRITE_30M: 8,
        Bucket.CACHE_WRITE_1H: 16,
        Bucket.CACHE_WRITE_12H: 32,
        Bucket.OUTPUT: 64,
        Bucket.REASONING: 128,
    }
    told = usage_block(Usage(tokens))
    assert (told["input_tokens"], told["output_tokens"]) == (1, 192)
    assert (told["cache_read_input_tokens"], told["cache_creation_input_tokens"]) == (2, 60)
    assert told["cache_creation"] == {"ephemeral_5m_input_tokens": 12, "ephemeral_1h_input_tokens": 48}
    assert told["output_tokens_details"] == {"thinking_tokens": 128}


def test_a_chunk_without_choices_says_nothing_and_a_reply_without_them_is_an_error() -> None:
    odd = {"object": "chat.completion.chunk"}
    said = streamed(MESSAGES, chunks(odd, delta(content="Hi"), delta(finish="stop")))
    assert said[-2]["delta"]["stop_reason"] == "end_turn"
    decoder = translator(MESSAGES, stream=False)
    decoder.feed(orjson.dumps({"id": "c1"}))
    with pytest.raises(UpstreamFailed):
        decoder.finish()


# Ends and errors


def test_a_provider_that_answers_whole_where_a_stream_was_asked_for_is_streamed_to_the_client() -> None:
    said = streamed(CHAT, orjson.dumps(REPLY))
    assert said[0]["object"] == "chat.completion.chunk"
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in said[:-2]) == "It rains."
    assert said[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("client", "sent"),
    [
        (CHAT, messages(START, *block(0, {"type": "text", "text": "Hi"}))),
        (MESSAGES, chunks(delta(content="Hi"), done=False)),
        (CHAT, b""),
        (MESSAGES, b": nothing\n\n"),
    ],
    ids=["messages", "chat", "empty", "comment"],
)
def test_a_stream_that_breaks_off_is_an_error_and_never_an_end(client: Format, sent: bytes) -> None:
    decoder = translator(client, stream=True)
    decoder.feed(sent)
    with pytest.raises(UpstreamBroken):
        decoder.finish()
    assert not decoder.meter.complete


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
LIMITED = {"error": {"message": "Slow down", "code": 429}}


@pytest.mark.parametrize(
    ("client", "sent", "kind"),
    [
        (CHAT, messages(OVERLOADED), UpstreamOverloaded),
        (MESSAGES, event(orjson.dumps(LIMITED)), UpstreamRateLimited),
        (MESSAGES, event(b'{"object":"error","message":"boom","code":500}'), UpstreamFailed),
        (MESSAGES, b'error: {"code":500,"message":"boom","type":"server_error"}\n\n', UpstreamFailed),
        (MESSAGES, b"data: {oops\n\n", UpstreamBroken),
        (CHAT, b"data: [1]\n\n", UpstreamBroken),
    ],
    ids=["anthropic", "openai", "flat", "llama.cpp", "no json", "no object"],
)
def test_an_error_before_anything_was_said_is_raised_at_once(
    client: Format, sent: bytes, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        translator(client, stream=True).feed(sent)


@pytest.mark.parametrize("client", [CHAT, MESSAGES], ids=str)
def test_an_error_in_the_middle_comes_after_all_that_was_said_before_it(client: Format) -> None:
    said, broken = (
        (messages(START, *block(0, {"type": "text", "text": "Hi"})), messages(OVERLOADED))
        if client is CHAT
        else (chunks(delta(content="Hi"), done=False), event(orjson.dumps(LIMITED)))
    )
    decoder = translator(client, stream=True)
    assert b"Hi" in decoder.feed(said + broken)
    with pytest.raises(GatewayError):
        decoder.finish()
    with pytest.raises(GatewayError):
        decoder.feed(b"")
    assert decoder.generated() == "Hi"


@pytest.mark.parametrize("client", [CHAT, MESSAGES], ids=str)
def test_an_error_inside_a_whole_reply_is_raised(client: Format) -> None:
    decoder = translator(client, stream=False)
    decoder.feed(orjson.dumps(OVERLOADED if client is CHAT else {"error": {"message": "x", "code": 529}}))
    with pytest.raises(UpstreamOverloaded):
        decoder.finish()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"choices": 5}', b'{"choices": [5]}'])
def test_a_whole_reply_that_is_none_is_a_broken_upstream(body: bytes) -> None:
    decoder = translator(MESSAGES, stream=False)
    decoder.feed(body)
    with pytest.raises(UpstreamBroken):
        decoder.finish()


def test_what_was_counted_before_a_reply_failed_is_known() -> None:
    decoder = translator(MESSAGES, stream=False)
    failed = {**COMPLETION, "choices": [{"index": 0, "error": {"code": 502, "message": "x"}, "message": {}}]}
    decoder.feed(orjson.dumps(failed))
    with pytest.raises(UpstreamFailed):
        decoder.finish()
    assert isinstance(decoder.meter.usage, Usage)


def test_a_cut_stream_ends_in_an_error_of_the_clients_format_and_pretends_nothing() -> None:
    error = UpstreamOverloaded("It broke.")
    assert orjson.loads(parse(translator(CHAT, stream=True).cut(error)).data or b"") == {
        "error": {"message": "It broke.", "type": "api_error", "param": None, "code": "upstream_overloaded"}
    }
    name, data = parse(translator(MESSAGES, stream=True).cut(error))
    assert name == "error"
    assert orjson.loads(data or b"") == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "It broke.", "code": "upstream_overloaded"},
    }
    assert translator(CHAT, stream=False).cut(error) == b""

"""Laws of the hub for OpenAI Responses; the strategies are those of `test_translation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings, strategies as st

from gateway.conversation import Conversation, Finish, Part, Reply, ToolCall, ToolResult
from gateway.dialects.codec import Heading
from gateway.dialects.deltas import Delta, fold
from gateway.dialects.translate import CODECS, Translator
from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.types import Cost, Format
from tests.property.test_translation import (
    HEADING,
    conversations,
    json_values,
    orjson_or_nothing,
    paths,
    plain,
    read,
    request,
    spoiled,
    step,
    streams,
    through,
    written,
)

RESPONSES = CODECS[Format.RESPONSES]


def unmarked(part: Part) -> Part:
    """Without what Responses has no place for: cache marks, and whether a result is an error."""
    if isinstance(part, ToolResult):
        return replace(part, cache=None, is_error=False, parts=tuple(map(unmarked, part.parts)))
    return replace(part, cache=None) if hasattr(part, "cache") else part


def sayable(conversation: Conversation) -> Conversation:
    """What Responses can say of it."""
    turns = tuple(replace(turn, parts=tuple(map(unmarked, turn.parts))) for turn in conversation.turns)
    tools = tuple(replace(tool, cache=None, strict=bool(tool.strict)) for tool in conversation.tools)
    shape = conversation.shape and replace(conversation.shape, name="answer", strict=None)
    system = tuple(replace(text, cache=None) for text in conversation.system)
    return replace(conversation, turns=turns, tools=tools, shape=shape, system=system, cache=None, stop=())


def without_errors(conversation: Conversation) -> bool:
    return not any(getattr(part, "is_error", False) for turn in conversation.turns for part in turn.parts)


@given(conversations().filter(without_errors))
def test_a_conversation_survives_responses(conversation: Conversation) -> None:
    there_and_back = through(RESPONSES, replace(conversation, stop=()))
    images = replace(there_and_back, shape=there_and_back.shape and replace(there_and_back.shape, strict=None))
    assert _undetailed(images) == _undetailed(sayable(conversation))


def _undetailed(conversation: Conversation) -> Conversation:
    """An image's detail is `auto` where nothing is said; a file has a name."""

    def bare(part: Part) -> Part:
        if hasattr(part, "detail"):
            return replace(part, detail="")
        return replace(part, title=part.title if part.title != "file" else "") if hasattr(part, "title") else part

    turns = tuple(replace(turn, parts=tuple(map(bare, turn.parts))) for turn in conversation.turns)
    return replace(conversation, turns=turns, output_max=None)


PAIRS = [
    (Format.CHAT, Format.RESPONSES),
    (Format.RESPONSES, Format.CHAT),
    (Format.MESSAGES, Format.RESPONSES),
    (Format.RESPONSES, Format.MESSAGES),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=30)
@given(conversations().filter(without_errors), st.booleans())
def test_a_conversation_survives_both_formats_of_a_pair(
    first: Format, second: Format, conversation: Conversation, one_at_a_time: bool
) -> None:
    callable_ = conversation.tool_choice is not None and conversation.tool_choice.mode != "none"
    parallel = False if one_at_a_time and callable_ else None
    asked = replace(sayable(conversation), parallel=parallel)
    there_and_back = through(CODECS[second], through(CODECS[first], asked))
    assert _unnamed(there_and_back) == _unnamed(asked)


def _unnamed(conversation: Conversation) -> Conversation:
    """Without what Anthropic has no place for, and OpenAI fills in: the name and strictness of a schema."""
    shape = conversation.shape and replace(conversation.shape, name="", strict=None)
    tools = tuple(replace(tool, strict=bool(tool.strict)) for tool in conversation.tools)
    return replace(_undetailed(conversation), shape=shape, tools=tools)


def test_stop_words_are_refused_by_name() -> None:
    conversation = CODECS[Format.CHAT].read_request({"messages": [{"role": "user", "content": "x"}], "stop": ["."]})
    with pytest.raises(UnsupportedField) as refused:
        RESPONSES.write_request(conversation, step(), drop_params=False)
    assert refused.value.param == "stop"


def as_told(reply: Reply) -> Reply:
    """With the id that the gateway gives, and the finish that the calls say."""
    [answer] = reply.answers
    called = any(isinstance(part, ToolCall) for part in answer.parts)
    ended = Finish.TOOLS if called else Finish.END
    finish = ended if answer.finish in (Finish.END, Finish.TOOLS) else answer.finish
    return replace(reply, id="resp_r1", answers=(replace(answer, finish=finish),))


@given(streams())
def test_a_stream_survives_responses(deltas: list[Delta]) -> None:
    assert plain(fold(read(RESPONSES, written(RESPONSES, deltas)))) == as_told(fold(deltas))


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=30)
@given(streams())
def test_a_stream_survives_both_formats_of_a_pair(first: Format, second: Format, deltas: list[Delta]) -> None:
    there = read(CODECS[first], written(CODECS[first], deltas))
    back = plain(fold(read(CODECS[second], written(CODECS[second], there))))
    assert replace(back, id="resp_r1") == as_told(fold(deltas))


@given(streams())
def test_a_whole_response_is_what_its_stream_builds(deltas: list[Delta]) -> None:
    reply = fold(deltas)
    whole = RESPONSES.reader(step().deployment.provider, 0.0).read_whole(RESPONSES.write_reply(reply, HEADING, None))
    assert plain(fold(whole)) == as_told(reply)


@given(streams())
def test_the_last_event_holds_the_response_that_its_events_built(deltas: list[Delta]) -> None:
    events = [orjson.loads(line[6:]) for line in written(RESPONSES, deltas).splitlines() if line.startswith(b"data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert [done[index] for index in sorted(done)] == events[-1]["response"]["output"]
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))


@given(deltas=streams(), cuts=st.lists(st.integers(1, 60), min_size=1, max_size=20))
@pytest.mark.parametrize(
    ("client", "provider"), [("responses", "chat"), ("chat", "responses"), ("messages", "responses")]
)
def test_a_stream_may_be_split_anywhere(client: str, provider: str, deltas: list[Delta], cuts: list[int]) -> None:
    stream = written(CODECS[Format(provider)], deltas)

    def decoder() -> Translator:
        return Translator(request(Format(client), {}, stream=True), step(), lambda usage: Cost(1), Format(provider))

    whole, pieces = decoder(), decoder()
    expected = whole.feed(stream) + whole.finish()
    out, at = b"", 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        out += pieces.feed(stream[at : at + size])
        at += size
    assert out + pieces.finish() == expected
    assert pieces.meter.usage == whole.meter.usage


GOOD: dict[str, Any] = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Hello."},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "x",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "1"}]},
    ],
    "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": "required",
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    "include": ["reasoning.encrypted_content"],
    "temperature": 0.5,
    "max_output_tokens": 100,
    "stream": True,
}


def translate(body: Any, *, drop: bool) -> None:
    """Only the errors of the promise."""
    for other in (Format.CHAT, Format.MESSAGES):
        try:
            asked = RESPONSES.read_request(body)
            orjson.dumps(CODECS[other].write_request(asked, step(), drop_params=drop))
        except (UnsupportedField, InvalidRequest):
            continue
        except (orjson.JSONEncodeError, RecursionError):
            continue  # the border of the hub says it is nested too deeply


def test_the_good_request_is_asked_of_both() -> None:
    for other in (Format.CHAT, Format.MESSAGES):
        assert CODECS[other].write_request(RESPONSES.read_request(GOOD), step(), drop_params=False)["model"]


@settings(max_examples=300)
@given(data=st.data(), drop=st.booleans())
def test_a_good_request_with_anything_in_one_place_is_translated_or_refused(data: st.DataObject, drop: bool) -> None:
    path = data.draw(st.sampled_from([path for path in paths(GOOD) if path]))
    translate(spoiled(GOOD, path, data.draw(json_values)), drop=drop)


@settings(max_examples=300)
@given(data=st.data())
def test_whatever_a_provider_answers_only_gateway_errors_are_raised(data: st.DataObject) -> None:
    deltas = data.draw(streams())
    whole = orjson.loads(RESPONSES.write_reply(fold(deltas), Heading("1", "m", 1), None))
    events = [orjson.loads(line[6:]) for line in written(RESPONSES, deltas).splitlines() if line.startswith(b"data: ")]
    place = data.draw(st.integers(0, len(events) - 1))
    bad = spoiled(events[place], data.draw(st.sampled_from(paths(events[place])[1:])), data.draw(json_values))
    events[place] = bad
    spoilt = spoiled(whole, data.draw(st.sampled_from(paths(whole)[1:])), data.draw(json_values))
    bodies = [(True, b"".join(b"data: " + orjson_or_nothing(event) + b"\n\n" for event in events))]
    bodies.append((False, orjson_or_nothing(spoilt)))
    tries: list[Callable[[], bytes]] = []
    for stream, body in bodies:
        for client in (Format.CHAT, Format.MESSAGES):
            decoder = Translator(request(client, {}, stream=stream), step(), lambda usage: Cost(1), Format.RESPONSES)
            tries.append(lambda d=decoder, b=body: d.feed(b) + d.finish())  # type: ignore[misc]  # binds the loop's
    for attempt in tries:
        try:
            attempt()
        except GatewayError:
            continue

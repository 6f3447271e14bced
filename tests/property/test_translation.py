"""Laws of the hub: what two formats can both say survives the way there and back, and no JSON breaks a reader.

Where formats differ, and a conversation cannot come back as it went, is in tests/unit/test_translate_requests.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings, strategies as st
from msgspec import structs

from gateway.conversation import (
    CacheMark,
    Citation,
    Conversation,
    Document,
    Finish,
    Image,
    Part,
    Reasoning,
    Reply,
    Role,
    Sampling,
    Shape,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from gateway.dialects.codec import Heading
from gateway.dialects.deltas import (
    ArgumentsDelta,
    CitationDelta,
    Delta,
    EncryptedReasoning,
    Finished,
    PartEnded,
    ReasoningDelta,
    SignatureDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    UsageSeen,
    fold,
)
from gateway.dialects.translate import CODECS, Translator, translated_body
from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.plan import Step
from gateway.sse import Splitter, parse
from gateway.types import Bucket, Cost, Deployment, Estimate, Format, Key, Provider, Request, Tenant, Usage

EVERY_EXTENSION = ["cache_control", "reasoning_content", "thinking_blocks", "is_error", "top_k"]
CHAT, MESSAGES = CODECS[Format.CHAT], CODECS[Format.MESSAGES]
HEADING = Heading("r1", "model", 1_700_000_000, 5, include_usage=True)
PROVIDER = Provider("p", "any", options={"accepts": EVERY_EXTENSION})


def step(model: str = "claude-opus-4-5", cap: int = 100_000) -> Step:
    return Step(Deployment("d", PROVIDER, model), Estimate(7, 9), cap, 50, 0.0)


words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
marks = st.none() | st.sampled_from([CacheMark(), CacheMark(5), CacheMark(60)])
base64 = st.sampled_from(["AAAA", "aGVsbG8="])
texts = st.builds(Text, words, cache=marks)
images = st.builds(Image, url=st.just("https://example.org/a.png"), cache=marks) | st.builds(
    Image, data=base64, media_type=st.sampled_from(["image/png", "image/webp"]), cache=marks
)
documents = st.builds(
    Document, data=base64, media_type=st.just("application/pdf"), title=st.just("") | words, cache=marks
) | st.builds(Document, text=words, media_type=st.just("text/plain"), title=st.just("") | words, cache=marks)
json_objects = st.dictionaries(words, st.none() | st.booleans() | st.integers(-9, 9) | words, max_size=3)
schemas = json_objects.map(lambda more: {**more, "type": "object"})
calls = st.builds(ToolCall, names, names, json_objects.map(lambda value: orjson.dumps(value).decode()), marks)
results = st.builds(ToolResult, names, st.lists(texts, max_size=2).map(tuple), st.booleans(), marks)
thoughts = st.builds(Reasoning, words, words) | st.builds(Reasoning, encrypted=words)
tools = st.builds(Tool, names, st.just("") | words, schemas, st.none() | st.booleans(), marks)
choices = st.sampled_from([ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), ToolChoice("tool", "f")])


@st.composite
def turns(draw: st.DrawFn) -> tuple[Turn, ...]:
    """In canonical form: roles in turn, results before what the user says, thoughts before text before calls."""
    out: list[Turn] = []
    for i in range(draw(st.integers(1, 4))):
        said: list[Part] = draw(st.lists(texts | images | documents, min_size=1, max_size=3))
        found = draw(st.lists(results, max_size=2)) if i else []
        out.append(Turn(Role.USER, (*found, *said)))
        thought, spoken = draw(st.lists(thoughts, max_size=2)), draw(st.lists(texts, min_size=1, max_size=2))
        out.append(Turn(Role.ASSISTANT, (*thought, *spoken, *draw(st.lists(calls, max_size=2)))))
    return tuple(out[: -1 if draw(st.booleans()) else None])


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    known = tuple(draw(st.lists(tools, max_size=2)))
    return Conversation(
        turns=draw(turns()),
        system=tuple(draw(st.lists(texts, max_size=2))),
        tools=known,
        tool_choice=draw(choices) if known else None,
        shape=draw(st.none() | st.builds(Shape, st.just("json_schema"), schemas)),
        sampling=draw(st.builds(Sampling, st.none() | st.floats(0, 1), st.none() | st.floats(0, 0.9))),
        stop=tuple(draw(st.lists(words.filter(str.strip), max_size=4))),
        output_max=100_000,
        stream=draw(st.booleans()),
        user=draw(st.just("") | words),
        cache=draw(marks),
    )


def through(codec: Any, conversation: Conversation) -> Conversation:
    """Written to a provider of the format and read as if a client had sent it."""
    body = codec.write_request(conversation, step(), drop_params=False)
    return codec.read_request(orjson.loads(orjson.dumps(body)))


def same_shape(conversation: Conversation) -> Conversation:
    """Without the name and strictness of a schema, which Anthropic has no place for."""
    shape = conversation.shape and Shape(conversation.shape.kind, conversation.shape.schema)
    return replace(conversation, shape=shape)


@given(conversations())
def test_a_conversation_survives_chat(conversation: Conversation) -> None:
    assert same_shape(through(CHAT, conversation)) == conversation


@given(conversations())
def test_a_conversation_survives_messages(conversation: Conversation) -> None:
    assert through(MESSAGES, conversation) == conversation


@given(conversations())
def test_chat_to_messages_and_back_loses_nothing_both_can_say(conversation: Conversation) -> None:
    there_and_back = through(CHAT, through(MESSAGES, through(CHAT, conversation)))
    assert same_shape(there_and_back) == conversation


@given(st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max"]))
def test_an_effort_becomes_a_budget_and_the_same_effort_again(effort: str) -> None:
    asked = Conversation((Turn(Role.USER, (Text("hi"),)),), thinking=Thinking(effort))
    budget = through(MESSAGES, asked)
    assert budget.thinking is not None
    assert budget.thinking.budget
    assert through(CHAT, budget).thinking == Thinking(effort)


# Replies and streams

citations = st.builds(
    lambda url, title, text: Citation(
        url,
        title,
        text,
        {
            "type": "web_search_result_location",
            "url": url,
            "title": title,
            "cited_text": text,
            "encrypted_index": "x",
        },
    ),
    st.just("https://example.org"),
    words,
    words,
)


@st.composite
def streams(draw: st.DrawFn) -> list[Delta]:
    """What a provider may stream: thoughts, texts and calls in pieces."""
    out: list[Delta] = [Started("id_1", "model-1")]
    for _ in range(draw(st.integers(0, 1))):
        out += [ReasoningDelta(piece) for piece in draw(st.lists(words, min_size=1, max_size=3))]
        out += [SignatureDelta(draw(words)), PartEnded()]
    for data in draw(st.lists(words, max_size=1)):
        out += [EncryptedReasoning(data), PartEnded()]
    for _ in range(draw(st.integers(0, 1))):
        out += [TextDelta(piece) for piece in draw(st.lists(words, min_size=1, max_size=3))]
        out += [PartEnded()]
    for index in range(draw(st.integers(0, 2))):
        out += [ToolCallStarted(index, f"call_{index}", draw(names))]
        out += [ArgumentsDelta(index, piece) for piece in ('{"a": ', "1}")]
        out += [PartEnded()]
    out.append(Finished(draw(st.sampled_from([Finish.END, Finish.LENGTH, Finish.TOOLS, Finish.REFUSED]))))
    counts = st.integers(1, 1000)
    tokens = {Bucket.INPUT: draw(counts), Bucket.CACHE_READ: draw(counts), Bucket.OUTPUT: draw(counts)}
    return [*out, UsageSeen(Usage(tokens))]


def written(codec: Any, deltas: list[Delta]) -> bytes:
    writer = codec.writer(HEADING)
    *_, usage = (delta.usage for delta in deltas if isinstance(delta, UsageSeen))
    return b"".join([*map(writer.write, deltas), writer.end(usage, None)])


def read(codec: Any, stream: bytes) -> list[Delta]:
    reader, splitter = codec.reader(PROVIDER, 0.0), Splitter()
    events = [parse(raw).data for raw in [*splitter.feed(stream), splitter.rest()]]
    deltas = [delta for data in events if data for delta in reader.read(data)]
    assert reader.complete
    assert reader.failure is None
    return deltas


def plain(reply: Reply) -> Reply:
    """Without the provider's own block beside the usage."""
    assert reply.usage is not None
    return replace(reply, usage=structs.replace(reply.usage, reported={}, reported_cost=None))


@pytest.mark.parametrize("codec", [CHAT, MESSAGES], ids=["chat", "messages"])
@given(deltas=streams())
def test_a_stream_survives_its_format(codec: Any, deltas: list[Delta]) -> None:
    assert plain(fold(read(codec, written(codec, deltas)))) == fold(deltas)


@given(streams())
def test_a_stream_survives_both_formats(deltas: list[Delta]) -> None:
    there = read(MESSAGES, written(MESSAGES, deltas))
    assert plain(fold(read(CHAT, written(CHAT, there)))) == fold(deltas)


@pytest.mark.parametrize("codec", [CHAT, MESSAGES], ids=["chat", "messages"])
@given(deltas=streams())
def test_a_whole_reply_is_the_reply_its_stream_builds(codec: Any, deltas: list[Delta]) -> None:
    reply = fold(deltas)
    reader = codec.reader(PROVIDER, 0.0)
    whole = plain(fold(reader.read_whole(codec.write_reply(reply, HEADING, None))))
    assert said(whole) == said(reply)


def said(reply: Reply) -> Reply:
    """With arguments as what they mean: a whole message has them parsed."""
    answers = []
    for answer in reply.answers:
        parts = tuple(
            replace(part, arguments=orjson.dumps(orjson.loads(part.arguments)).decode())
            if isinstance(part, ToolCall)
            else part
            for part in answer.parts
        )
        answers.append(replace(answer, parts=parts))
    return replace(reply, answers=tuple(answers))


@given(streams(), citations)
def test_a_citation_survives_messages(deltas: list[Delta], citation: Citation) -> None:
    cited = [Started("id_1", "m"), TextDelta("so"), CitationDelta(citation), *deltas[1:]]
    reply = fold(read(MESSAGES, written(MESSAGES, cited)))
    first = next(part for part in reply.answers[0].parts if isinstance(part, Text))
    assert first.citations == (citation,)


@pytest.mark.parametrize(("client", "provider"), [(CHAT, MESSAGES), (MESSAGES, CHAT)], ids=["chat", "messages"])
@given(deltas=streams(), cuts=st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_a_stream_may_be_split_anywhere(client: Any, provider: Any, deltas: list[Delta], cuts: list[int]) -> None:
    stream = written(provider, deltas)
    whole, pieces = translator(client.format, provider.format), translator(client.format, provider.format)
    expected = whole.feed(stream) + whole.finish()
    out, at = b"", 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        out += pieces.feed(stream[at : at + size])
        at += size
    assert out + pieces.finish() == expected
    assert pieces.meter.usage == whole.meter.usage
    assert pieces.generated() == whole.generated()


def request(format_: Format, body: Any, *, stream: bool = False) -> Request:
    return Request("r1", format_, b"", body, "m", stream, 1_700_000_000.0, Key("k", "acme", "test", b""))


def translator(client: Format, provider: Format) -> Translator:
    body = {"stream_options": {"include_usage": True}}
    return Translator(request(client, body, stream=True), step(), lambda usage: Cost(1_500), provider)


# Bad input

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)

GOOD: dict[Format, dict[str, Any]] = {
    Format.CHAT: {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                    {"type": "file", "file": {"filename": "f.txt", "file_data": "data:text/plain;base64,AAAA"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}],
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "r"}], "is_error": True},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
        },
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        "reasoning": {"effort": "low"},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "stop": ["a"],
        "temperature": 1,
        "max_completion_tokens": 5,
        "stream": True,
        "user": "u",
    },
    Format.MESSAGES: {
        "model": "m",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                        "title": "t",
                        "citations": {"enabled": False},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "text", "text": "x", "citations": [{"type": "char_location", "cited_text": "d"}]},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {}, "caller": {"type": "direct"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "r"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "output_config": {
            "effort": "low",
            "format": {
                "type": "json_schema",
                "schema": {"type": "object", "properties": {"a": {}}, "required": ["a"]},
            },
        },
        "thinking": {"type": "adaptive"},
        "stop_sequences": ["a"],
        "metadata": {"user_id": "u"},
        "temperature": 1,
        "stream": True,
    },
}


known_names = st.sampled_from(sorted(GOOD[Format.CHAT] | GOOD[Format.MESSAGES])) | st.text(max_size=5)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in paths(item, (*path, key)))]


def spoiled(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    body = copy.deepcopy(body)
    at: Any = body
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return body


def translate(client: Format, body: Any, *, drop: bool) -> None:
    """Only the errors of the promise, and they name what they mean."""
    other = Format.MESSAGES if client is Format.CHAT else Format.CHAT
    tenant = Tenant("acme", drop_params=drop)
    refusal: UnsupportedField | InvalidRequest | None = None
    try:
        assert orjson.loads(translated_body(request(client, body), step(), tenant, other))
    except (UnsupportedField, InvalidRequest) as error:
        refusal = error
    assert not (drop and isinstance(refusal, UnsupportedField))
    assert refusal is None or refusal.param is not None or "nested" in refusal.message


@pytest.mark.parametrize("client", [Format.CHAT, Format.MESSAGES], ids=str)
@given(
    body=st.dictionaries(known_names, json_values),
    drop=st.booleans(),
)
def test_any_json_is_translated_or_refused_by_name(client: Format, body: Any, drop: bool) -> None:
    translate(client, body, drop=drop)


@pytest.mark.parametrize("client", [Format.CHAT, Format.MESSAGES], ids=str)
@settings(max_examples=400)
@given(data=st.data(), drop=st.booleans())
def test_a_good_body_with_anything_in_one_place_is_translated_or_refused_by_name(
    client: Format, data: st.DataObject, drop: bool
) -> None:
    path = data.draw(st.sampled_from([path for path in paths(GOOD[client]) if path]))
    translate(client, spoiled(GOOD[client], path, data.draw(json_values)), drop=drop)


@pytest.mark.parametrize("codec", [CHAT, MESSAGES], ids=["chat", "messages"])
@settings(max_examples=300)
@given(data=st.data())
def test_whatever_a_provider_answers_only_gateway_errors_are_raised(codec: Any, data: st.DataObject) -> None:
    good = orjson.loads(codec.write_reply(fold(data.draw(streams())), HEADING, None))
    path = data.draw(st.sampled_from([path for path in paths(good) if path]))
    body = data.draw(st.just(spoiled(good, path, data.draw(json_values))) | json_values)
    other = Format.MESSAGES if codec is CHAT else Format.CHAT
    text = orjson_or_nothing(body)
    tries: list[Callable[[], bytes]] = []
    for stream in (False, True):
        decoder = Translator(request(other, {}, stream=stream), step(), lambda usage: Cost(1), codec.format)
        tries.append(lambda d=decoder: d.feed(text) + d.finish())  # type: ignore[misc]  # binds the loop's decoder
        tries.append(lambda d=decoder: d.feed(b"data: " + text + b"\n\n") + d.finish())  # type: ignore[misc]  # as above
    for attempt in tries:
        try:
            attempt()
        except GatewayError:
            continue


def orjson_or_nothing(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return b"{}"

"""Laws of the formats that only providers speak: what Amazon's own SDK would refuse is never sent, what a model said
goes back to it as it was said, no JSON and no bytes break a reader, and framing does not depend on where it is cut.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import orjson
import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from hypothesis import given, settings, strategies as st

from gateway import ndjson
from gateway.conversation import (
    CacheMark,
    Conversation,
    Document,
    Image,
    Part,
    Reasoning,
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
from gateway.dialects.deltas import fold
from gateway.dialects.translate import PROVIDERS, Translator
from gateway.errors import GatewayError, UpstreamBroken
from gateway.eventstream import Splitter
from gateway.plan import Step
from gateway.types import Cost, Deployment, Estimate, Format, Key, Provider, Request

FORMATS = [Format.CONVERSE, Format.COHERE, Format.OLLAMA]
SHAPE = Session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape
PROVIDER = Provider("p", "any")
MODELS = ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.nova-pro-v1:0", "openai.gpt-oss-120b-1:0"]

words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
marks = st.none() | st.sampled_from([CacheMark(), CacheMark(5), CacheMark(60)])
texts = st.builds(Text, words, cache=marks)
images = st.builds(Image, data=st.just("AAAA"), media_type=st.sampled_from(["image/png", "image/webp"]), cache=marks)
documents = st.builds(Document, text=words, media_type=st.just("text/plain"), title=words, cache=marks)
objects = st.dictionaries(words, st.none() | st.booleans() | st.integers(-9, 9) | words, max_size=3)
arguments = objects.map(lambda value: orjson.dumps(value).decode())
calls = st.builds(ToolCall, st.text(min_size=1, max_size=90), names, arguments, marks)
results = st.builds(ToolResult, words, st.lists(texts | images, max_size=2).map(tuple), st.booleans(), marks)
thoughts = st.builds(Reasoning, words, words) | st.builds(Reasoning, encrypted=words)
tools = st.builds(Tool, names, st.just("") | words, objects, st.none() | st.booleans(), marks)
choices = st.sampled_from([ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), ToolChoice("tool", "f")])


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns: list[Turn] = []
    for i in range(draw(st.integers(1, 3))):
        said: list[Part] = draw(st.lists(texts | images | documents, min_size=1, max_size=3))
        turns.append(Turn(Role.USER, (*(draw(st.lists(results, max_size=2)) if i else ()), *said)))
        spoken = (*draw(st.lists(thoughts, max_size=1)), *draw(st.lists(texts, min_size=1, max_size=2)))
        turns.append(Turn(Role.ASSISTANT, (*spoken, *draw(st.lists(calls, max_size=2)))))
    known = tuple(draw(st.lists(tools, max_size=2)))
    return Conversation(
        turns=tuple(turns),
        system=tuple(draw(st.lists(texts, max_size=2))),
        tools=known,
        tool_choice=draw(choices) if known else None,
        parallel=draw(st.none() | st.booleans()),
        shape=draw(st.none() | st.builds(Shape, st.just("json_schema"), objects)),
        sampling=draw(st.builds(Sampling, st.none() | st.floats(0, 1), st.none() | st.floats(0, 1), st.none())),
        stop=tuple(draw(st.lists(words, max_size=3))),
        thinking=draw(st.none() | st.sampled_from([Thinking("low"), Thinking("none"), Thinking(budget=5000)])),
        stream=draw(st.booleans()),
        cache=draw(marks),
    )


def step(model: str = "m") -> Step:
    return Step(Deployment("d", PROVIDER, model), Estimate(7, 9), 9000, 50, 0.0)


@settings(max_examples=60, deadline=None)
@given(conversations(), st.sampled_from(MODELS))
def test_amazons_own_sdk_would_send_whatever_we_write(conversation: Conversation, model: str) -> None:
    body = PROVIDERS[Format.CONVERSE].write_request(conversation, step(model), drop_params=True)
    report = ParamValidator().validate({"modelId": model, **body}, SHAPE)
    assert not report.has_errors(), report.generate_report()
    assert json.loads(orjson.dumps(body)) == body


spoken = st.tuples(
    st.lists(texts, min_size=1, max_size=1), st.lists(st.builds(ToolCall, names, names, arguments), max_size=2)
)


def read_whole(format_: Format, reply: dict[str, Any]) -> tuple[Part, ...]:
    reader = PROVIDERS[format_].reader(PROVIDER, 0.0)
    parts = fold(reader.read_whole(orjson.dumps(reply))).answers[0].parts
    assert reader.complete
    return parts


def written(format_: Format, parts: tuple[Part, ...], model: str) -> dict[str, Any]:
    conversation = Conversation((Turn(Role.USER, (Text("?"),)), Turn(Role.ASSISTANT, parts)))
    body = PROVIDERS[format_].write_request(conversation, step(model), drop_params=False)
    message: dict[str, Any] = body["messages"][-1]
    return message


def plain(parts: tuple[Part, ...]) -> list[Any]:
    """Without what no answer carries: cache marks."""
    return [
        (part.id, part.name, json.loads(part.arguments))
        if isinstance(part, ToolCall)
        else (part.text, part.signature, part.encrypted)
        if isinstance(part, Reasoning)
        else part.text
        for part in parts
        if isinstance(part, Text | ToolCall | Reasoning)
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(thoughts, max_size=1), spoken)
def test_what_claude_said_on_bedrock_goes_back_as_it_was_said(
    thought: list[Part], said: tuple[list[Part], list[Part]]
) -> None:
    parts = (*thought, *said[0], *said[1])
    message = written(Format.CONVERSE, parts, MODELS[0])
    content = [block for block in message["content"] if "cachePoint" not in block]
    reply = {"output": {"message": {**message, "content": content}}, "stopReason": "end_turn"}
    assert plain(read_whole(Format.CONVERSE, reply)) == plain(parts)


@settings(max_examples=40, deadline=None)
@given(words, spoken)
def test_what_cohere_said_goes_back_as_it_was_said(plan: str, said: tuple[list[Part], list[Part]]) -> None:
    parts = (*([Reasoning(plan)] if said[1] else []), *said[0], *said[1])
    reply = {"id": "1", "message": written(Format.COHERE, parts, "command-a"), "finish_reason": "COMPLETE"}
    assert plain(read_whole(Format.COHERE, reply)) == plain(parts)


@settings(max_examples=40, deadline=None)
@given(words, spoken)
def test_what_ollama_said_goes_back_as_it_was_said(thought: str, said: tuple[list[Part], list[Part]]) -> None:
    parts = (Reasoning(thought), *said[0], *said[1])
    reply = {"model": "m", "message": written(Format.OLLAMA, parts, "qwen3"), "done": True}
    assert plain(read_whole(Format.OLLAMA, reply)) == plain(parts)


KEYS = """
type delta message content usage error output contentBlockDelta contentBlockStart contentBlockIndex start toolUse id
toolUseId name input text tool_calls function arguments done metadata messageStop stopReason finish_reason citations
sources logprobs reasoningContent citation location web cacheDetails billed_units tokens prompt_eval_count thinking
"""
keys = st.sampled_from(KEYS.split())
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
leaves |= st.sampled_from(["content-delta", "tool-call-start", "tool-call-delta", "message-end", "citation-start"])
values_of_json = st.recursive(
    leaves, lambda value: st.lists(value, max_size=3) | st.dictionaries(keys, value, max_size=4), max_leaves=15
)


@pytest.mark.parametrize("format_", FORMATS)
@settings(max_examples=150, deadline=None)
@given(values=st.lists(values_of_json, min_size=1, max_size=4), whole=st.booleans())
def test_no_json_breaks_a_reader(format_: Format, values: list[Any], whole: bool) -> None:
    body = {"stream": not whole}
    request = Request("r", Format.CHAT, b"", body, "m", not whole, 1.0, Key("k", "acme", "test", b""))
    decoder = Translator(request, step(), lambda usage: Cost(1), format_)
    try:
        for value in values:
            decoder.feed(json.dumps(value).encode() if whole else event(format_, value))
        decoder.finish()
    except GatewayError:
        pass


def event(format_: Format, value: object) -> bytes:
    data = json.dumps(value).encode()
    if format_ is Format.OLLAMA:
        return data + b"\n"
    if format_ is Format.COHERE:
        return b"data: " + data + b"\n\n"
    name = next(iter(value)) if isinstance(value, dict) and value else "metadata"
    return frame({":message-type": "event", ":event-type": name}, data)


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message as Amazon sends it."""
    labels = b"".join(
        bytes((len(name.encode()),)) + name.encode() + b"\x07" + struct.pack("!H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", len(labels) + len(payload) + 16, len(labels))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    whole = prelude + labels + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


Sent = tuple[str, str, bytes]
messages = st.lists(st.tuples(st.sampled_from(["event", "exception"]), names, st.binary(max_size=60)), max_size=5)
places = st.lists(st.integers(0, 2_000), max_size=12)


def split(chunks: list[bytes], into: list[Any]) -> None:
    """Adds the messages in the chunks, as far as they come."""
    splitter = Splitter()
    for chunk in chunks:
        into += [tuple(message) for message in splitter.feed(chunk)]
    splitter.rest()


@given(messages, places)
def test_messages_are_the_same_wherever_the_stream_is_cut(
    sent: list[tuple[str, str, bytes]], places: list[int]
) -> None:
    data = b"".join(frame({":message-type": kind, f":{kind}-type": name}, body) for kind, name, body in sent)
    found: list[Sent] = []
    split(cut(data, places), found)
    assert found == sent


@given(messages, places, st.integers(0, 10_000), st.integers(1, 255))
def test_a_byte_that_changes_is_noticed_and_nothing_before_it_is_lost(
    sent: list[Sent], places: list[int], at: int, flip: int
) -> None:
    frames = [frame({":message-type": kind, f":{kind}-type": name}, body) for kind, name, body in sent]
    data = bytearray(b"".join(frames))
    if not data:
        return
    at %= len(data)
    data[at] ^= flip
    before = 0
    while sum(len(each) for each in frames[: before + 1]) <= at:
        before += 1
    found: list[tuple[str, ...]] = []
    with pytest.raises(UpstreamBroken):
        split([*cut(bytes(data), places), b""], found)
    assert found == sent[:before]


@given(st.binary(max_size=200), places)
def test_no_bytes_break_a_splitter_of_messages(data: bytes, places: list[int]) -> None:
    try:
        split(cut(data, places), [])
    except UpstreamBroken:
        return
    assert data == b""


lines = st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b" ")), max_size=6)


@given(lines, places, st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_lines_are_the_same_wherever_the_stream_is_cut(
    sent: list[bytes], places: list[int], end: bytes, ended: bool
) -> None:
    data = end.join(sent) + (end if ended else b"")
    splitter = ndjson.Splitter()
    found = [line for chunk in cut(data, places) for line in splitter.feed(chunk)] + splitter.rest()
    assert found == [line for each in sent if (line := each.strip())]


def test_a_line_that_never_ends_is_broken() -> None:
    splitter = ndjson.Splitter(line_bytes_max=10)
    assert splitter.feed(b'{"a":1}\n{"b":') == [b'{"a":1}']
    with pytest.raises(UpstreamBroken):
        splitter.feed(b'"123456"')

"""Laws of Gemini: what it said comes back to it as it said it, through clients that know nothing of it."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from corpus import drain, request, step
from grown import grown_chat, grown_message
from hypothesis import given, strategies as st

from gateway.dialects.gemini import Gemini
from gateway.errors import GatewayError
from gateway.types import Cost, Format, Provider, Tenant

GOOGLE = Provider("google", "gemini", "https://generativelanguage.googleapis.com/v1beta", "secret-key")
MODEL = "gemini-3-flash-preview"
DIALECT = Gemini()
CHAT, MESSAGES = Format.CHAT, Format.MESSAGES

words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
signatures = st.from_regex(r"[A-Za-z0-9+/]{1,8}={0,2}", fullmatch=True)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
arguments = st.dictionaries(words, st.none() | st.booleans() | st.integers(-9, 9) | words, max_size=2)


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Parts as Gemini orders and signs them: thoughts, text, then calls of which the first is signed."""
    out: list[dict[str, Any]] = [{"text": text, "thought": True} for text in draw(st.lists(words, max_size=2))]
    out += [{"text": text} | draw(signed()) for text in draw(st.lists(words, max_size=1))]
    calls = [{"functionCall": {"name": draw(names), "args": draw(arguments)}} for _ in range(draw(st.integers(0, 3)))]
    if calls:
        calls[0] |= {"thoughtSignature": draw(signatures)}
    return out + calls or [{"text": "x"}]


@st.composite
def signed(draw: st.DrawFn) -> dict[str, str]:
    return {"thoughtSignature": draw(signatures)} if draw(st.booleans()) else {}


def reply(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
        "modelVersion": MODEL,
        "responseId": "r7",
    }


def wire(chunks: list[dict[str, Any]]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


def answered(parts: list[dict[str, Any]], client: Format, *, stream: bool) -> dict[str, Any]:
    """The message as the client has it, in one piece or grown from a stream of one part a chunk."""
    asked = request(client, {"stream": stream, "stream_options": {"include_usage": True}})
    read = DIALECT.decoder(asked, step(GOOGLE, MODEL), lambda usage: Cost(1_500))
    if not stream:
        out = json.loads(drain(read, [json.dumps(reply(parts)).encode()]))
        return out["choices"][0]["message"] if client is CHAT else out
    chunks = [reply([part]) for part in parts]
    for chunk in chunks[:-1]:
        del chunk["candidates"][0]["finishReason"]
    out = drain(read, [wire(chunks)])
    return grown_chat(out)["message"] if client is CHAT else grown_message(out)


def sent_back(message: dict[str, Any], client: Format) -> list[dict[str, Any]]:
    """What Gemini is sent when the client goes on, with a result for every call, the last first."""
    first = {"role": "user", "content": "go"}
    if client is CHAT:
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        fields = {name: message[name] for name in ("content", "tool_calls", "thinking_blocks") if message.get(name)}
        calls = [{**call, "type": "function"} for call in fields.pop("tool_calls", ())]
        said = {"role": "assistant", **fields, **({"tool_calls": calls} if calls else {})}
        results = [{"role": "tool", "tool_call_id": id_, "content": id_} for id_ in reversed(ids)]
        payload = {"messages": [first, said, *results, first]}
    else:
        ids = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        blocks = [{"type": "tool_result", "tool_use_id": id_, "content": id_} for id_ in reversed(ids)]
        said = {"role": "assistant", "content": message["content"]}
        payload = {"max_tokens": 9, "messages": [first, said, {"role": "user", "content": blocks}, first]}
    call = DIALECT.encode(request(client, payload), step(GOOGLE, MODEL), Tenant("acme"))
    contents: list[dict[str, Any]] = json.loads(call.body)["contents"]
    return contents


@pytest.mark.parametrize("client", [CHAT, MESSAGES])
@given(parts=answers(), stream=st.booleans())
def test_what_gemini_said_comes_back_to_it_signed_as_it_was(
    client: Format, parts: list[dict[str, Any]], *, stream: bool
) -> None:
    contents = sent_back(answered(parts, client, stream=stream), client)
    spoken = [part for part in parts if not part.get("thought")]
    if not spoken:  # nothing but thoughts, and none of them proven
        assert [content["role"] for content in contents] == ["user"]
        return
    assert [content["role"] for content in contents] == ["user", "model", "user"]
    back = [part for part in contents[1]["parts"] if not part.get("thought")]
    calls = [part["functionCall"].pop("id") for part in back if "functionCall" in part]
    assert back == spoken
    thoughts = "".join(part["text"] for part in parts if part.get("thought"))
    assert "".join(part["text"] for part in contents[1]["parts"] if part.get("thought")) in ("", thoughts)
    answered_calls = [part["functionResponse"] for part in contents[2]["parts"] if "functionResponse" in part]
    asked = [part["functionCall"]["name"] for part in spoken if "functionCall" in part]
    assert [(each["id"], each["name"]) for each in answered_calls] == list(zip(calls, asked, strict=True))
    assert [each["response"] for each in answered_calls] == [{"result": id_} for id_ in calls]


@pytest.mark.parametrize("client", [CHAT, MESSAGES])
@given(parts=answers(), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_a_stream_may_be_split_anywhere(client: Format, parts: list[dict[str, Any]], cuts: list[int]) -> None:
    data = wire([reply([part]) for part in parts])
    asked = request(client, {"stream": True})
    whole, pieces = (DIALECT.decoder(asked, step(GOOGLE, MODEL), lambda usage: Cost(1)) for _ in range(2))
    expected = drain(whole, [data])
    out, at = b"", 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        out += pieces.feed(data[at : at + size])
        at += size
    assert out + pieces.finish() == expected
    assert pieces.meter.usage == whole.meter.usage


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)

FULL = reply(
    [
        {"text": "a", "thought": True, "thoughtSignature": "s"},
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "i"}, "thoughtSignature": "s"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
    ]
)
FULL["candidates"][0] |= {
    "finishMessage": "m",
    "logprobsResult": {
        "chosenCandidates": [{"token": "a", "logProbability": -1}],
        "topCandidates": [{"candidates": []}],
    },
    "citationMetadata": {"citations": [{"uri": "u", "startIndex": 1}]},
    "groundingMetadata": {
        "webSearchQueries": ["q"],
        "groundingChunks": [{"web": {"uri": "u", "title": "t"}}],
        "groundingSupports": [{"segment": {"text": "a"}, "groundingChunkIndices": [0]}],
    },
}
FULL["promptFeedback"] = {"blockReason": "OTHER"}
FULL["usageMetadata"] |= {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}], "serviceTier": "flex"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


@given(
    where=st.sampled_from(places(FULL)[1:]),
    other=json_values,
    client=st.sampled_from([CHAT, MESSAGES]),
    stream=st.booleans(),
)
def test_a_reply_with_anything_anywhere_is_read_or_is_an_error_of_the_provider(
    where: tuple[Any, ...], other: Any, client: Format, *, stream: bool
) -> None:
    broken = copy.deepcopy(FULL)
    owner = broken
    for key in where[:-1]:
        owner = owner[key]
    owner[where[-1]] = other
    read = DIALECT.decoder(request(client, {"stream": stream}), step(GOOGLE, MODEL), lambda usage: Cost(1))
    with contextlib.suppress(GatewayError):
        drain(read, [wire([broken]) if stream else json.dumps(broken).encode()])

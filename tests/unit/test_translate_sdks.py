"""The official SDKs on the other format's provider: through the dialect, out to a recorded answer, and back."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx
import httpx2  # what Anthropic's SDK uses
import openai
import orjson
import pytest
from pydantic import BaseModel

from gateway.dialects.anthropic_messages import AnthropicMessages
from gateway.dialects.base import Dialect
from gateway.dialects.openai_chat import OpenAIChat
from gateway.plan import Step
from gateway.sse import event
from gateway.types import Cost, Deployment, Estimate, Format, Key, Provider, Request, Tenant

USAGE = {"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 9}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-5",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": '{"city":"Graz"}'},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Graz"}},
        {"type": "tool_use", "id": "t2", "name": "weather", "input": {"city": "Linz"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": USAGE,
}
COMPLETION = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5.2",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": '{"city":"Graz"}',
                "reasoning_content": "hm",
                "tool_calls": [
                    {"id": f"t{i}", "type": "function", "function": {"name": "weather", "arguments": arguments}}
                    for i, arguments in enumerate(('{"city":"Graz"}', '{"city":"Linz"}'), 1)
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 15,
        "completion_tokens": 9,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}


def message_stream() -> bytes:
    """The message as Anthropic streams it."""
    head = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}}
    out: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    grown = [
        ({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking", ["h", "m"]),
        ({"type": "text", "text": ""}, "text_delta", "text", ['{"city":', '"Graz"}']),
        *(
            (
                {"type": "tool_use", "id": id_, "name": "weather", "input": {}},
                "input_json_delta",
                "partial_json",
                ['{"city":', f'"{city}"}}'],
            )
            for id_, city in (("t1", "Graz"), ("t2", "Linz"))
        ),
    ]
    for index, (start, kind, field, pieces) in enumerate(grown):
        out.append({"type": "content_block_start", "index": index, "content_block": start})
        out += [{"type": "content_block_delta", "index": index, "delta": {"type": kind, field: p}} for p in pieces]
        if kind == "thinking_delta":
            signed = {"type": "signature_delta", "signature": "sig"}
            out.append({"type": "content_block_delta", "index": index, "delta": signed})
        out.append({"type": "content_block_stop", "index": index})
    out += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": USAGE},
        {"type": "message_stop"},
    ]
    return b"".join(event(orjson.dumps(each), each["type"]) for each in out)


def completion_stream() -> bytes:
    """The completion as OpenAI streams it."""
    message: Any = COMPLETION["choices"][0]["message"]  # type: ignore[index]  # a list, as written above
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"reasoning_content": "hm"}, {"content": '{"city":'}]
    deltas.append({"content": '"Graz"}'})
    deltas += [{"tool_calls": [{**call, "index": i}]} for i, call in enumerate(message["tool_calls"])]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    chunks.append({"choices": [], "usage": COMPLETION["usage"]})  # type: ignore[dict-item]  # JSON
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5.2"}
    return b"".join(event(orjson.dumps({**head, **chunk})) for chunk in chunks) + b"data: [DONE]\n\n"


class Served:
    """One deployment of a dialect, behind an HTTP client's back."""

    def __init__(self, client: Format, dialect: Dialect, model: str, whole: Any, stream: bytes) -> None:
        self.client, self.dialect, self.model, self.whole, self.stream = client, dialect, model, whole, stream
        self.sent: Any = None  # what the provider was asked

    def answer(self, content: bytes) -> bytes:
        body = orjson.loads(content)
        key = Key("k", "acme", "test", b"")
        streams = bool(body.get("stream"))
        request = Request("r1", self.client, content, body, "m", streams, 1_700_000_000.0, key)
        provider = Provider("p", self.dialect.name, "https://provider.test", "secret")
        step = Step(Deployment("d", provider, self.model), Estimate(7, 9), 4000, 50, 0.0)
        self.sent = orjson.loads(self.dialect.encode(request, step, Tenant("acme")).body)
        decoder = self.dialect.decoder(request, step, lambda usage: Cost(usage.output_tokens * 1000))
        sent = self.stream if streams else orjson.dumps(self.whole)
        return b"".join([decoder.feed(sent[at : at + 7]) for at in range(0, len(sent), 7)]) + decoder.finish()


@pytest.fixture
def on_anthropic() -> Served:
    return Served(Format.CHAT, AnthropicMessages(), "claude-opus-4-5", MESSAGE, message_stream())


@pytest.fixture
def on_openai() -> Served:
    return Served(Format.MESSAGES, OpenAIChat(), "gpt-5.2", COMPLETION, completion_stream())


def openai_client(served: Served) -> openai.OpenAI:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=served.answer(request.content), headers={"content-type": kind(request)})

    transport = httpx.Client(transport=httpx.MockTransport(handle))
    return openai.OpenAI(base_url="http://gateway/v1", api_key="k", http_client=transport)


def anthropic_client(served: Served) -> anthropic.Anthropic:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=served.answer(request.content), headers={"content-type": kind(request)})

    transport = httpx2.Client(transport=httpx2.MockTransport(handle))
    return anthropic.Anthropic(base_url="http://gateway", api_key="k", http_client=transport)


def kind(request: httpx.Request | httpx2.Request) -> str:
    return "text/event-stream" if orjson.loads(request.content).get("stream") else "application/json"


class City(BaseModel):
    city: str


TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
ANTHROPIC_TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
QUESTION: Any = [{"role": "user", "content": "Where am I?"}]
CALLED = [("t1", '{"city":"Graz"}'), ("t2", '{"city":"Linz"}')]


def test_openais_sdk_reads_a_whole_answer_of_anthropic(on_anthropic: Served) -> None:
    reply = openai_client(on_anthropic).chat.completions.create(model="m", messages=QUESTION, tools=TOOLS)
    choice = reply.choices[0]
    assert choice.message.content == '{"city":"Graz"}'
    assert choice.finish_reason == "tool_calls"
    calls = [call for call in choice.message.tool_calls or [] if call.type == "function"]
    assert [(call.id, call.function.arguments) for call in calls] == CALLED
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (15, 9)
    assert reply.usage.to_dict()["cost"] == 0.000009


def test_openais_sdk_streams_an_answer_of_anthropic(on_anthropic: Served) -> None:
    client = openai_client(on_anthropic)
    asked = {"model": "m", "messages": QUESTION, "tools": TOOLS, "stream_options": {"include_usage": True}}
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    choice = final.choices[0]
    assert choice.message.content == '{"city":"Graz"}'
    assert [(call.id, call.function.arguments) for call in choice.message.tool_calls or []] == CALLED
    assert choice.finish_reason == "tool_calls"
    assert final.usage is not None
    assert final.usage.completion_tokens == 9


def test_openais_sdk_parses_a_structured_answer_of_anthropic(on_anthropic: Served) -> None:
    reply = openai_client(on_anthropic).chat.completions.parse(model="m", messages=QUESTION, response_format=City)
    assert reply.choices[0].message.parsed == City(city="Graz")
    assert on_anthropic.sent["output_config"]["format"]["schema"]["properties"].keys() == {"city"}


def test_openais_sdk_sends_an_answer_of_anthropic_back_with_its_thoughts(on_anthropic: Served) -> None:
    client = openai_client(on_anthropic)
    said = client.chat.completions.create(model="m", messages=QUESTION, tools=TOOLS).choices[0].message
    results: Any = [{"role": "tool", "tool_call_id": id_, "content": "sun"} for id_, _ in CALLED]
    history: Any = [*QUESTION, said.to_dict(), *results]
    client.chat.completions.create(model="m", messages=history, tools=TOOLS)
    assert on_anthropic.sent["messages"][1]["content"] == MESSAGE["content"]
    assert [block["tool_use_id"] for block in on_anthropic.sent["messages"][2]["content"]] == ["t1", "t2"]


def test_anthropics_sdk_reads_a_whole_answer_of_openai(on_openai: Served) -> None:
    reply = anthropic_client(on_openai).messages.create(
        model="m", max_tokens=100, messages=QUESTION, tools=ANTHROPIC_TOOLS
    )
    assert [block.type for block in reply.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.input for block in reply.content if block.type == "tool_use"] == [{"city": "Graz"}, {"city": "Linz"}]
    assert reply.stop_reason == "tool_use"
    assert (reply.usage.input_tokens, reply.usage.cache_read_input_tokens, reply.usage.output_tokens) == (12, 3, 9)


def test_anthropics_sdk_streams_an_answer_of_openai(on_openai: Served) -> None:
    client = anthropic_client(on_openai)
    with client.messages.stream(model="m", max_tokens=100, messages=QUESTION, tools=ANTHROPIC_TOOLS) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == '{"city":"Graz"}'
    assert [block.input for block in final.content if block.type == "tool_use"] == [{"city": "Graz"}, {"city": "Linz"}]
    assert final.stop_reason == "tool_use"
    assert final.usage.output_tokens == 9
    assert on_openai.sent["stream_options"] == {"include_usage": True}


def test_anthropics_sdk_sends_an_answer_of_openai_back(on_openai: Served) -> None:
    client = anthropic_client(on_openai)
    said = client.messages.create(model="m", max_tokens=100, messages=QUESTION, tools=ANTHROPIC_TOOLS)
    results: Any = [{"type": "tool_result", "tool_use_id": id_, "content": "sun"} for id_, _ in CALLED]
    history: Any = [*QUESTION, {"role": "assistant", "content": said.content}, {"role": "user", "content": results}]
    client.messages.create(model="m", max_tokens=100, messages=history, tools=ANTHROPIC_TOOLS)
    sent = on_openai.sent["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [(call["id"], call["function"]["arguments"]) for call in sent[1]["tool_calls"]] == CALLED

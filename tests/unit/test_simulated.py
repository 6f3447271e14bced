from __future__ import annotations

import asyncio
import json
from dataclasses import fields
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from gateway.dialects.simulated import Simulated
from gateway.plan import Step
from gateway.simulated import SimulatedTransport
from gateway.simulated.answer import STARTS, WORDS, prose
from gateway.simulated.reply import Fault, respond
from gateway.simulated.schema import DEPTH_MAX, instance
from gateway.simulated.script import OPTIONS, Place, Script, ScriptError, WrongUsage, read
from gateway.simulated.server import Server
from gateway.tokens import simulated_input_tokens
from gateway.tokens.encodings import count, load
from gateway.types import Deployment, Estimate, Format, Key, Provider, Request, Tenant

PROMPT = [{"role": "user", "content": "What does a token cost?"}]


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Client:
    """A client of the simulated provider, with the transport and the time it runs on."""

    def __init__(self) -> None:
        self.time = Time()
        self.transport = SimulatedTransport(clock=self.time.clock, sleep=self.time.sleep, now=lambda: 1.0)
        self.client = httpx.AsyncClient(transport=self.transport, base_url="simulated://anywhere/v1")

    async def chat(self, script: str = "", **body: Any) -> httpx.Response:
        return await self.client.post(
            "/chat/completions", json={"model": f"sim?{script}", "messages": PROMPT, **body}, timeout=None
        )

    async def messages(self, script: str = "", **body: Any) -> httpx.Response:
        asked = {"model": f"sim?{script}", "messages": PROMPT, "max_tokens": 1000, **body}
        return await self.client.post("/messages", json=asked)

    async def chunks(self, script: str = "", **body: Any) -> list[dict[str, Any]]:
        reply = await self.chat(script, stream=True, stream_options={"include_usage": True}, **body)
        *events, done, end = reply.text.split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    async def events(self, script: str = "", **body: Any) -> list[dict[str, Any]]:
        reply = await self.messages(script, stream=True, **body)
        found = [event.split("\n") for event in reply.text.strip().split("\n\n")]
        events = [json.loads(data.removeprefix("data: ")) for _, data in found]
        assert [name.removeprefix("event: ") for name, _ in found] == [event["type"] for event in events]
        return events


@pytest.fixture
def provider() -> Client:
    return Client()


def text(reply: httpx.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def streamed(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


# What the script says


def test_every_field_of_a_script_is_an_option_and_every_option_a_field() -> None:
    assert list(OPTIONS) == [field.name for field in fields(Script)]


def test_the_model_name_gives_the_script_and_metadata_overrules_it() -> None:
    body = {
        "model": "sim-small?latency_ms=50&tps=200&output=120&no_usage",
        "metadata": {"sim": "tps=10&cached=0.5", "sim_output": 7, "other": "x"},
    }
    assert read(body) == ("sim-small", Script(latency_ms=50, tps=10, output=7, cached=0.5, no_usage=True))


@pytest.mark.parametrize(
    ("query", "script"),
    [
        ("reset=before", Script(reset=Place.BEFORE)),
        ("reset=1", Script(reset=Place.MIDDLE)),
        ("stall=headers", Script(stall=Place.HEADERS)),
        ("wrong_usage=negative", Script(wrong_usage=WrongUsage.NEGATIVE)),
        ("refusal=0&echo=yes", Script(echo=True)),
        ("tool=f({%22a%22:1})", Script(tool='f({"a":1})')),
    ],
)
def test_an_option_is_read_as_what_it_is(query: str, script: Script) -> None:
    assert read({"model": f"m?{query}"}) == ("m", script)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("outptu=3", "no option 'outptu'; did you mean output?"),
        ("xyz=3", "known: latency_ms, "),
        ("output=-1", "output='-1': a whole number"),
        ("output=many", "output='many'"),
        ("tps=nan", "tps='nan'"),
        ("latency_ms=inf", "latency_ms='inf'"),
        ("cached=1.5", "a share from 0 to 1"),
        ("status=301", "an HTTP status from 400 to 599"),
        ("reset=later", "reset='later'"),
        ("finish=maybe", "stop, length or content_filter"),
        ("refusal=maybe", "1 or 0"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(query: str, complaint: str) -> None:
    with pytest.raises(ScriptError) as caught:
        read({"model": f"m?{query}"})
    assert complaint in str(caught.value)


# What it says


@pytest.mark.parametrize("tokens", [0, 1, 2, 11, 12, 13, 24, 500])
@pytest.mark.parametrize("seed", [0, 1, 99])
def test_prose_is_exactly_as_many_tokens_as_asked_for(seed: int, tokens: int) -> None:
    assert len(prose(seed, tokens)) == tokens
    assert count("".join(prose(seed, tokens))) == tokens


def test_every_word_of_the_vocabulary_is_one_token() -> None:
    encoding = load("o200k_base")
    words = [*WORDS, *STARTS, *(f" {start}" for start in STARTS)]
    assert [word for word in words if len(encoding.encode_ordinary(word)) != 1] == []


async def test_the_same_prompt_gets_the_same_answer_and_another_prompt_another(provider: Client) -> None:
    one, same = await provider.chat(), await provider.chat(max_tokens=500)
    other = await provider.chat(messages=[{"role": "user", "content": "And a word?"}])
    assert text(one) == text(same) != text(other)


async def test_usage_is_the_true_count(provider: Client) -> None:
    reply = (await provider.chat("output=77")).json()
    assert reply["model"] == "sim"
    assert count(reply["choices"][0]["message"]["content"]) == 77
    body = {"model": "sim", "messages": PROMPT}
    assert reply["usage"] == {
        "prompt_tokens": simulated_input_tokens(Format.CHAT, body),
        "completion_tokens": 77,
        "total_tokens": simulated_input_tokens(Format.CHAT, body) + 77,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
async def test_an_answer_is_never_longer_than_the_request_allows(provider: Client, cap: str) -> None:
    reply = (await provider.chat("output=500&reasoning=30", **{cap: 40})).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 40
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 30
    assert count(reply["choices"][0]["message"]["content"]) == 10


async def test_an_answer_as_long_as_its_cap_ended_by_itself(provider: Client) -> None:
    reply = (await provider.chat("output=40", max_tokens=40)).json()
    assert reply["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_says_what_the_whole_reply_says(provider: Client) -> None:
    whole = (await provider.chat("output=30&reasoning=5&cached=0.5")).json()
    chunks = await provider.chunks("output=30&reasoning=5&cached=0.5")
    assert streamed(chunks) == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert {chunk["id"] for chunk in chunks} == {whole["id"]}


async def test_a_stream_tells_its_usage_only_when_asked(provider: Client) -> None:
    reply = await provider.chat("output=3", stream=True)
    assert "usage" not in reply.text


async def test_many_choices_are_each_paid_for(provider: Client) -> None:
    reply = (await provider.chat("output=10&reasoning=2", n=3)).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in reply["choices"]}) == 3
    assert reply["usage"]["completion_tokens"] == 36
    chunks = await provider.chunks("output=10&reasoning=2", n=3)
    assert [streamed(chunks, index) for index in range(3)] == [
        choice["message"]["content"] for choice in reply["choices"]
    ]


async def test_the_cached_share_is_part_of_the_prompt_for_openai_and_beside_it_for_anthropic(
    provider: Client,
) -> None:
    chat = (await provider.chat("cached=0.5")).json()["usage"]
    claude = (await provider.messages("cached=0.5")).json()["usage"]
    assert chat["prompt_tokens_details"]["cached_tokens"] == chat["prompt_tokens"] // 2 > 0
    assert claude["cache_read_input_tokens"] == chat["prompt_tokens"] // 2
    assert claude["input_tokens"] + claude["cache_read_input_tokens"] == chat["prompt_tokens"]


async def test_usage_can_be_missing_or_absurd(provider: Client) -> None:
    assert "usage" not in (await provider.chat("no_usage")).json()
    assert all("usage" not in chunk for chunk in await provider.chunks("no_usage"))
    assert not any("usage" in event for event in await provider.events("no_usage"))
    cached = (await provider.chat("wrong_usage=cached")).json()["usage"]
    assert cached["prompt_tokens_details"]["cached_tokens"] > cached["prompt_tokens"]
    assert (await provider.chat("wrong_usage=negative")).json()["usage"]["completion_tokens"] == -9


async def test_log_probabilities_come_when_asked_for_and_token_by_token(provider: Client) -> None:
    reply = (await provider.chat("output=5", logprobs=True, top_logprobs=2)).json()["choices"][0]
    tokens = reply["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == reply["message"]["content"]
    assert [len(token["top_logprobs"]) for token in tokens] == [2] * 5
    assert (await provider.chat("output=5")).json()["choices"][0]["logprobs"] is None


async def test_echo_says_the_last_message_again(provider: Client) -> None:
    said = [{"role": "user", "content": [{"type": "text", "text": "naïve 🙂 text"}]}]
    assert text(await provider.chat("echo", messages=said)) == "naïve 🙂 text"
    assert streamed(await provider.chunks("echo", messages=said)) == "naïve 🙂 text"


async def test_a_refusal_is_one_in_either_format(provider: Client) -> None:
    message = (await provider.chat("refusal")).json()["choices"][0]["message"]
    assert message["content"] is None
    assert message["refusal"] == "I cannot help with that."
    assert (await provider.messages("refusal")).json()["stop_reason"] == "refusal"


@pytest.mark.parametrize(("finish", "stop"), [("length", "max_tokens"), ("content_filter", "refusal")])
async def test_the_reason_for_the_end_can_be_scripted(provider: Client, finish: str, stop: str) -> None:
    assert (await provider.chat(f"finish={finish}")).json()["choices"][0]["finish_reason"] == finish
    assert (await provider.messages(f"finish={finish}")).json()["stop_reason"] == stop


# Tools and schemas

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
CLAUDE_TOOL = {"name": "weather", "input_schema": PARAMETERS}


async def test_a_scripted_tool_is_called_with_its_arguments(provider: Client) -> None:
    script = 'tool=weather({"city":"Bern"})'
    choice = (await provider.chat(script)).json()["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"] == {"name": "weather", "arguments": '{"city":"Bern"}'}
    chunks = await provider.chunks(script)
    calls = [choice["delta"]["tool_calls"][0] for c in chunks for choice in c["choices"] if choice["delta"]]
    assert calls[0]["id"] == call["id"]
    assert "".join(part["function"]["arguments"] for part in calls) == '{"city":"Bern"}'


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_tool_that_must_be_called_is_called_as_its_schema_says(provider: Client, choice: Any) -> None:
    reply = (await provider.chat(tools=[CHAT_TOOL], tool_choice=choice)).json()
    arguments = reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"city": "simulated"}
    assert reply["usage"]["completion_tokens"] == count("weather") + count(arguments)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
async def test_anthropic_tools_are_called_too(provider: Client, choice: Any) -> None:
    asked = {"tools": [CLAUDE_TOOL], "tool_choice": choice}
    whole = (await provider.messages(**asked)).json()
    assert (whole["stop_reason"], whole["content"][0]["input"]) == ("tool_use", {"city": "simulated"})
    events = await provider.events(**asked)
    parts = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert json.loads("".join(parts)) == {"city": "simulated"}


async def test_once_the_tool_has_answered_the_model_speaks_so_that_agents_end(provider: Client) -> None:
    history = [*PROMPT, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    reply = (await provider.chat("tool=weather", tools=[CHAT_TOOL], messages=history)).json()
    assert reply["choices"][0]["finish_reason"] == "stop"


async def test_a_schema_is_answered_with_an_instance_of_it(provider: Client) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": PARAMETERS}}
    assert json.loads(text(await provider.chat(response_format=form))) == {"city": "simulated"}
    assert json.loads(text(await provider.chat(response_format={"type": "json_object"})))
    claude = {"format": {"type": "json_schema", "schema": PARAMETERS}}
    reply = (await provider.messages(output_config=claude)).json()
    assert json.loads(reply["content"][0]["text"]) == {"city": "simulated"}


NODE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name", "next", "children"],
        }
    },
    "$ref": "#/$defs/Node",
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 4}, 4),
        ({"type": "integer", "minimum": 7}, 7),
        ({"type": "integer", "exclusiveMinimum": 7}, 8),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "integer", "maximum": 0}, 0),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "minimum": 1}, 1.0),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["string", "null"]}, "simulated"),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "minLength": 12}, "simulatedxxx"),
        ({"type": "string", "maxLength": 3}, "sim"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"type": "array", "prefixItems": [{"const": "x"}]}, ["x"]),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        (
            {
                "allOf": [
                    {"type": "object", "properties": {"a": {"const": 1}}},
                    {"properties": {"b": {"const": 2}}, "required": ["b"]},
                ]
            },
            {"a": 1, "b": 2},
        ),
        ({}, "simulated"),
        (True, "simulated"),
    ],
)
def test_an_instance_fits_its_schema(schema: Any, value: Any) -> None:
    assert instance(schema) == value


def test_a_schema_that_refers_to_itself_has_a_finite_instance() -> None:
    assert instance(NODE)["next"]["name"] == "simulated"
    assert len(json.dumps(instance(NODE))) < 10_000 * DEPTH_MAX


# How long it takes, on a clock that only sleeping moves


async def test_a_whole_reply_takes_the_time_its_script_says(provider: Client) -> None:
    await provider.chat("latency_ms=100&first_token_ms=300&tps=50&output=100&reasoning=50")
    assert provider.time.now == pytest.approx(0.1 + 0.3 + 150 / 50)


async def test_headers_come_before_a_slow_first_token_and_tokens_at_their_pace(provider: Client) -> None:
    asked = {"model": "sim?latency_ms=100&first_token_ms=300&tps=10&output=5", "messages": PROMPT, "stream": True}
    async with provider.client.stream("POST", "/chat/completions", json=asked) as reply:
        assert provider.time.now == pytest.approx(0.1)
        arrived = [round(provider.time.now, 3) async for _ in reply.aiter_raw()]
    assert arrived == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9]


# What goes wrong


@pytest.mark.parametrize(("status", "code"), [(400, None), (401, "invalid_api_key"), (429, "rate_limit_exceeded")])
async def test_an_error_has_the_providers_shape(provider: Client, status: int, code: str | None) -> None:
    chat, claude = await provider.chat(f"status={status}"), await provider.messages(f"status={status}")
    assert (chat.status_code, claude.status_code) == (status, status)
    assert chat.json()["error"]["code"] == code
    assert claude.json()["type"] == "error"
    assert "retry-after" not in chat.headers


async def test_an_error_carries_the_code_and_the_advice_it_is_told_to(provider: Client) -> None:
    reply = await provider.chat("status=400&code=context_length_exceeded&retry_after=2.5")
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert reply.headers["retry-after"] == "2.5"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"model": "sim"}',
        b'{"messages": []}',
        b'{"model": "sim", "messages": [1]}',
        b'{"model": "sim", "messages": [], "max_tokens": -1}',
        b'{"model": "sim?output=x", "messages": []}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_request_it_cannot_read_is_a_400(path: str, body: bytes) -> None:
    assert respond(path, body, 0, simulated_input_tokens).status == 400


def test_a_path_it_does_not_have_is_a_404() -> None:
    assert respond("/v1/embeddings", b"{}", 0, simulated_input_tokens).status == 404


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("connect", httpx.ConnectError),
        ("before", httpx.ReadError),
        ("headers", httpx.ReadError),
        ("middle", httpx.ReadError),
    ],
)
async def test_a_connection_breaks_where_the_script_says(
    provider: Client, place: str, error: type[Exception], stream: bool
) -> None:
    got = b""
    started = False
    asked = {"model": f"sim?reset={place}&output=10", "messages": PROMPT, "stream": stream}
    with pytest.raises(error):  # noqa: PT012 - where it raises is what differs
        async with provider.client.stream("POST", "/chat/completions", json=asked) as reply:
            started = reply.status_code == 200
            async for chunk in reply.aiter_raw():
                got += chunk
    assert started == (place in {"headers", "middle"})
    assert bool(got) == (place == "middle")
    assert b"[DONE]" not in got
    if stream and place == "middle":
        assert got.count(b'"content":') == 1 + 5


@pytest.mark.parametrize("output", [0, 1, 2])
@pytest.mark.parametrize("reasoning", [0, 3])
def test_a_short_stream_that_breaks_never_pretends_to_be_complete(output: int, reasoning: int) -> None:
    body = {
        "model": f"sim?reset=middle&output={output}&reasoning={reasoning}",
        "messages": PROMPT,
        "stream": True,
        "max_tokens": 9,
    }
    for path, end in (("/v1/chat/completions", b"[DONE]"), ("/v1/messages", b"message_stop")):
        pieces = [piece for _, piece in respond(path, json.dumps(body).encode(), 0, simulated_input_tokens).pieces]
        assert pieces[-1] is Fault.RESET
        assert not any(end in piece for piece in pieces if isinstance(piece, bytes))


async def test_a_stall_says_nothing_more_for_as_long_as_anyone_waits(provider: Client) -> None:
    with pytest.raises(httpx.ReadError):
        await provider.chat("stall=middle&output=10", stream=True)
    assert provider.time.now > 3600


async def test_an_error_can_come_in_the_middle_of_a_stream(provider: Client) -> None:
    chat = await provider.chat("error=middle&status=503&output=10", stream=True)
    assert chat.status_code == 200
    assert json.loads(chat.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "overloaded"
    claude = await provider.events("error=middle&status=529&output=10")
    assert claude[-1]["error"]["type"] == "overloaded_error"


async def test_a_reply_that_is_hung_up_on_counts_as_abandoned(provider: Client) -> None:
    asked = {"model": "sim?output=50", "messages": PROMPT, "stream": True}
    async with provider.client.stream("POST", "/chat/completions", json=asked) as reply:
        async for _ in reply.aiter_raw():
            break
    await provider.chat()
    found = provider.transport
    assert (found.called, found.completed, found.abandoned) == (2, 1, 1)


# Anthropic's events


async def test_messages_come_as_anthropic_writes_them(provider: Client) -> None:
    events = await provider.events("output=3&reasoning=2")
    assert [event["type"] for event in events] == [
        "message_start",
        "ping",
        "content_block_start",
        *["content_block_delta"] * 3,  # two of thinking and its signature
        "content_block_stop",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    whole = (await provider.messages("output=3&reasoning=2")).json()
    assert [block["type"] for block in whole["content"]] == ["thinking", "text"]
    said = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    assert said == whole["content"][1]["text"]
    assert events[-2]["usage"] == whole["usage"]
    assert whole["usage"]["output_tokens"] == 5
    assert whole["usage"]["output_tokens_details"] == {"thinking_tokens": 2}


# Over TCP


async def test_over_a_real_connection_it_says_the_same_and_breaks_the_same() -> None:
    server = Server()
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}/v1") as client:

        async def ask(script: str, *, stream: bool = False) -> httpx.Response:
            body = {"model": f"sim?first_token_ms=0&{script}", "messages": PROMPT, "stream": stream}
            return await client.post("/chat/completions", json=body)

        whole = await ask("output=9")
        assert count(text(whole)) == 9
        assert (await ask("output=9", stream=True)).text.endswith("data: [DONE]\n\n")
        assert (await ask("status=503")).status_code == 503
        with pytest.raises(httpx.TransportError):
            await ask("reset=before")
        with pytest.raises(httpx.TransportError):
            await ask("reset=middle&output=9", stream=True)
        with pytest.raises(httpx.TransportError):
            await ask("reset=middle&output=9")
        stats = (await client.get("/stats")).json()
    await server.close()
    assert stats == {"called": 6, "completed": 3, "abandoned": 3}


@pytest.mark.parametrize("script", ["stall=headers", "tps=200&output=100000"])
async def test_over_a_real_connection_a_caller_who_hangs_up_ends_the_call(script: str) -> None:
    server = Server()
    await server.start()
    body = {"model": f"sim?first_token_ms=0&{script}", "messages": PROMPT, "stream": True}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}/v1") as client,
        client.stream("POST", "/chat/completions", json=body),
    ):
        assert server.stats.called == 1
    async with asyncio.timeout(5):
        while not server.stats.abandoned:  # noqa: ASYNC110 - the other end of a connection tells nobody
            await asyncio.sleep(0)
    await server.close()


# The dialect that leads there

STEP = Step(
    Deployment("small", Provider("sim", "simulated"), "sim-small?tps=100"),
    Estimate(10, 10),
    output_cap=64,
    output_expected=64,
    at=0.0,
)


def asked(format_: Format, body: dict[str, Any]) -> Request:
    raw = json.dumps(body).encode()
    key = Key("k", "acme", "test", b"")
    return Request("r", format_, raw, body, "auto", stream=False, received=0.0, key=key)


@pytest.mark.parametrize("format_", [Format.CHAT, Format.MESSAGES])
def test_every_format_reaches_the_simulated_provider_with_its_script_and_its_cap(format_: Format) -> None:
    body = {"model": "auto", "messages": PROMPT, "max_tokens": 500, "metadata": {"sim": "output=7", "user_id": "u"}}
    call = Simulated().encode(asked(format_, body), STEP, Tenant("acme"))
    assert call.url == "simulated://sim/v1/chat/completions"
    sent = json.loads(call.body)
    assert (sent["model"], sent["metadata"]["sim"]) == ("sim-small?tps=100", "output=7")
    assert sent["max_tokens"] == 64
    assert read(sent) == ("sim-small", Script(tps=100, output=7))


@pytest.mark.parametrize("metadata", [None, {}, {"user_id": "u"}, {"similar": "x"}])
def test_metadata_without_a_script_changes_nothing(metadata: Any) -> None:
    body = {"model": "auto", "messages": PROMPT, "max_tokens": 500, "metadata": metadata}
    call = Simulated().encode(asked(Format.MESSAGES, body), STEP, Tenant("acme"))
    assert "metadata" not in json.loads(call.body)


def test_a_simulated_provider_with_an_address_is_called_there() -> None:
    there = Provider("sim", "simulated", base_url="http://127.0.0.1:9000/v1")
    step = replace(STEP, deployment=replace(STEP.deployment, provider=there))
    call = Simulated().encode(asked(Format.CHAT, {"model": "auto", "messages": PROMPT}), step, Tenant("acme"))
    assert call.url == "http://127.0.0.1:9000/v1/chat/completions"

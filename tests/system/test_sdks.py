"""The official SDKs as clients of a real gateway process, with only their base URL and key changed.

Each speaks to both kinds of upstream, so that every pair of formats is met: `chat` speaks OpenAI's format over TCP,
`claude` Anthropic's, `auto` is a route to the simulated provider inside the gateway.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from processes import GatewayProcess, SimulatedProcess
from pydantic import BaseModel

pytestmark = pytest.mark.system

KEY = "sdk-test-key-0123"
CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  inside: {dialect: simulated}
  chat: {dialect: openai, base_url: "PROVIDER/v1", api_key: upstream-key, retries_max: 0}
  claude: {dialect: anthropic, base_url: "PROVIDER", api_key: upstream-key, retries_max: 0}
deployments:
  - {id: inside, provider: inside, upstream_model: "sim?first_token_ms=0", price: {input: 1, output: 2}}
  - {id: chat, provider: chat, upstream_model: "sim-gpt?first_token_ms=0&cached=0.5",
     price: {input: 1, output: 2, cache_read: 0.1}, context_max: 100000, output_max: 8000}
  - {id: claude, provider: claude, upstream_model: "sim-claude?first_token_ms=0&reasoning=3&cached=0.5",
     price: {input: 1, output: 2, cache_read: 0.1, cache_write_5m: 1.25}, context_max: 100000, output_max: 8000}
  - {id: dear, provider: inside, upstream_model: "sim-dear", price: {input: 1000000, output: 1000000}}
  - {id: broken, provider: chat, upstream_model: "sim-broken?status=503", price: {input: 1, output: 2}}
  - {id: cut, provider: chat, upstream_model: "sim-cut?reset=middle&output=40", price: {input: 1, output: 2}}
routes:
  auto: {candidates: [inside], policies: [{output_cap: {default: 500}}, cheapest]}
tenants:
  - id: acme
    keys: [{name: test, key: sdk-test-key-0123}]
    budgets: [{limit_usd: 100, window: day}]
"""
QUESTION = "What does a token cost?"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
CLAUDE_TOOLS: Any = [{"name": "weather", "input_schema": PARAMETERS}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MODELS = ["auto", "chat", "claude"]


class Price(BaseModel):
    """A nested answer with every type that schemas have."""

    class Tier(BaseModel):
        above: int
        dollars: float

    model: str
    tiers: list[Tier]
    batch: bool
    note: str | None


@pytest.fixture(scope="module")
def gateway(start: Any, provider: SimulatedProcess) -> GatewayProcess:
    found: GatewayProcess = start(CONFIG.replace("PROVIDER", provider.url))
    return found


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


@pytest.fixture
def claude(gateway: GatewayProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as found:
        yield found


# OpenAI


@pytest.mark.parametrize("model", MODELS)
def test_openai_gets_a_whole_answer_with_its_usage_and_its_cost(client: openai.OpenAI, model: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES, max_tokens=30)
    reply = raw.parse()
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason in {"stop", "length"}
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert 0 < reply.usage.completion_tokens <= 30
    assert float(raw.headers["x-tollgate-cost-usd"]) > 0


@pytest.mark.parametrize("model", MODELS)
def test_openai_streams_what_it_gets_whole(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=30)
    chunks = list(
        client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=30, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert float(chunks[-1].usage.cost) > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", MODELS)
def test_openai_that_does_not_ask_for_usage_gets_none(client: openai.OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=5, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("model", MODELS)
async def test_openai_async_serves_many_at_once(gateway: GatewayProcess, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:

        async def whole(number: int) -> str:
            asked: Any = [{"role": "user", "content": f"Question {number}"}]
            reply = await client.chat.completions.create(model=model, messages=asked, max_tokens=20)
            return reply.choices[0].message.content or ""

        async def streamed(number: int) -> str:
            asked: Any = [{"role": "user", "content": f"Question {number}"}]
            stream = await client.chat.completions.create(model=model, messages=asked, max_tokens=20, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        wholes = await asyncio.gather(*map(whole, range(20)))
        assert wholes == await asyncio.gather(*map(streamed, range(20)))
        assert len(set(wholes)) == 20, "nobody gets another's answer"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_openai_calls_a_tool_and_hears_its_answer(client: openai.OpenAI, model: str, stream: bool) -> None:
    asked: Any = {"model": model, "tools": TOOLS, "max_tokens": 200}
    if stream:
        with client.chat.completions.stream(messages=MESSAGES, tool_choice="required", **asked) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(messages=MESSAGES, tool_choice="required", **asked).choices[0].message
    call: Any = message.tool_calls[0] if message.tool_calls else None
    assert json.loads(call.function.arguments) == {"city": "simulated"}
    history: Any = [*MESSAGES, message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    reply = client.chat.completions.create(messages=history, **asked)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content


@pytest.mark.parametrize("model", MODELS)
def test_openai_parses_a_structured_answer(client: openai.OpenAI, model: str) -> None:
    reply = client.chat.completions.parse(model=model, messages=MESSAGES, response_format=Price)
    assert isinstance(reply.choices[0].message.parsed, Price)
    with client.chat.completions.stream(model=model, messages=MESSAGES, response_format=Price) as events:
        assert events.get_final_completion().choices[0].message.parsed == reply.choices[0].message.parsed


@pytest.mark.parametrize("model", MODELS)
def test_openai_shows_a_picture_and_pays_for_it(client: openai.OpenAI, model: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    seen: Any = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]}]
    with_it = client.chat.completions.create(model=model, messages=seen, max_tokens=5).usage
    without = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=5).usage
    assert with_it is not None
    assert without is not None
    assert with_it.prompt_tokens > without.prompt_tokens


@pytest.mark.parametrize("model", ["auto", "chat"])
def test_openai_gets_choices_and_log_probabilities(client: openai.OpenAI, model: str) -> None:
    reply = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=8, n=3, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    for choice in reply.choices:
        assert choice.logprobs is not None
        assert len(choice.logprobs.content or []) == 8
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 24


def test_openai_lists_and_describes_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"auto", "chat", "claude"} <= set(names)
    assert client.models.retrieve("auto").id == "auto"


@pytest.mark.parametrize(
    ("changed", "kind", "code"),
    [
        ({"model": "no-such-model"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": -1}, openai.BadRequestError, "invalid_request"),
        ({"messages": "hello"}, openai.BadRequestError, "invalid_request"),
        ({"model": "broken"}, openai.InternalServerError, None),
    ],
)
def test_openai_raises_what_it_raises_for_openai(
    client: openai.OpenAI, changed: dict[str, Any], kind: type[openai.APIStatusError], code: str | None
) -> None:
    asked = {"model": "auto", "messages": MESSAGES, **changed}
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**asked)
    assert code is None or caught.value.code == code


def test_openai_without_the_right_key_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").chat.completions.create(model="auto", messages=MESSAGES)


def test_openai_does_not_retry_what_a_budget_refuses(gateway: GatewayProcess) -> None:
    sent: list[str] = []
    counting = httpx2.Client(event_hooks={"request": [lambda request: sent.append(str(request.url))]})
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=3, http_client=counting) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="dear", messages=MESSAGES, max_tokens=1000)
    assert caught.value.code == "budget_exceeded"
    assert len(sent) == 1


def test_openai_learns_of_a_stream_that_breaks(client: openai.OpenAI) -> None:
    text = ""
    with pytest.raises(openai.APIError):  # noqa: PT012 - it breaks while it is read
        for chunk in client.chat.completions.create(model="cut", messages=MESSAGES, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text


# Anthropic


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_gets_a_whole_answer_with_its_usage(claude: anthropic.Anthropic, model: str) -> None:
    reply = claude.messages.create(model=model, max_tokens=30, messages=MESSAGES, system="Be brief.")
    texts = [block.text for block in reply.content if block.type == "text"]
    assert "".join(texts)
    assert reply.stop_reason in {"end_turn", "max_tokens"}
    assert reply.usage.input_tokens > 0
    assert 0 < reply.usage.output_tokens <= 30


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_streams_what_it_gets_whole(claude: anthropic.Anthropic, model: str) -> None:
    whole = claude.messages.create(model=model, max_tokens=30, messages=MESSAGES)
    with claude.messages.stream(model=model, max_tokens=30, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "".join(block.text for block in whole.content if block.type == "text")
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens
    assert final.stop_reason == whole.stop_reason


@pytest.mark.parametrize("model", MODELS)
async def test_anthropic_async_serves_many_at_once(gateway: GatewayProcess, model: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as claude:

        async def streamed(number: int) -> str:
            asked: Any = [{"role": "user", "content": f"Question {number}"}]
            async with claude.messages.stream(model=model, max_tokens=20, messages=asked) as stream:
                return "".join([text async for text in stream.text_stream])

        answers = await asyncio.gather(*map(streamed, range(20)))
    assert len(set(answers)) == 20


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_anthropic_calls_a_tool_and_hears_its_answer(claude: anthropic.Anthropic, model: str, stream: bool) -> None:
    asked: Any = {"model": model, "max_tokens": 200, "tools": CLAUDE_TOOLS}
    if stream:
        with claude.messages.stream(messages=MESSAGES, tool_choice={"type": "any"}, **asked) as events:
            message = events.get_final_message()
    else:
        message = claude.messages.create(messages=MESSAGES, tool_choice={"type": "any"}, **asked)
    assert message.stop_reason == "tool_use"
    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("weather", {"city": "simulated"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history: Any = [*MESSAGES, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert claude.messages.create(messages=history, **asked).stop_reason == "end_turn"


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_parses_a_structured_answer(claude: anthropic.Anthropic, model: str) -> None:
    reply = claude.messages.parse(model=model, max_tokens=500, messages=MESSAGES, output_format=Price)
    assert isinstance(reply.parsed_output, Price)


@pytest.mark.parametrize("model", MODELS)
def test_anthropic_shows_a_picture_and_pays_for_it(claude: anthropic.Anthropic, model: str) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    seen: Any = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]}]
    with_it = claude.messages.create(model=model, max_tokens=5, messages=seen).usage
    without = claude.messages.create(model=model, max_tokens=5, messages=MESSAGES).usage
    assert with_it.input_tokens > without.input_tokens


def test_anthropic_counts_before_it_asks(claude: anthropic.Anthropic) -> None:
    counted = claude.messages.count_tokens(model="auto", messages=MESSAGES)
    reply = claude.messages.create(model="auto", max_tokens=5, messages=MESSAGES)
    assert counted.input_tokens == reply.usage.input_tokens


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"model": "no-such-model"}, anthropic.NotFoundError),
        ({"max_tokens": -1}, anthropic.BadRequestError),
        ({"messages": "hello"}, anthropic.BadRequestError),
        ({"model": "dear", "max_tokens": 1000}, anthropic.RateLimitError),
    ],
)
def test_anthropic_raises_what_it_raises_for_anthropic(
    claude: anthropic.Anthropic, changed: dict[str, Any], kind: type[anthropic.APIStatusError]
) -> None:
    asked: Any = {"model": "auto", "max_tokens": 20, "messages": MESSAGES, **changed}
    with pytest.raises(kind) as caught:
        claude.messages.create(**asked)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["message"]


async def test_anthropic_does_not_retry_what_a_budget_refuses(gateway: GatewayProcess) -> None:
    """Its SDK would wait until the budget's window is over, and ask then."""
    sent: list[str] = []

    async def noted(request: httpx2.Request) -> None:
        sent.append(str(request.url))

    counting = httpx2.AsyncClient(event_hooks={"request": [noted]})
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, http_client=counting) as claude:
        async with asyncio.timeout(10):
            with pytest.raises(anthropic.RateLimitError):
                await claude.messages.create(model="dear", max_tokens=1000, messages=MESSAGES)
    assert len(sent) == 1


def test_anthropic_without_the_right_key_is_refused(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        claude.with_options(api_key="wrong").messages.create(model="auto", max_tokens=5, messages=MESSAGES)


# OpenAI's SDK for JavaScript


@pytest.mark.parametrize("model", MODELS)
def test_the_npm_sdk_gets_everything_too(gateway: GatewayProcess, run_node: Any, model: str) -> None:
    done = run_node("openai_sdk.js", f"{gateway.url}/v1", KEY, model)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stream"]["text"] == found["whole"]["text"] != ""
    assert found["stream"]["usage"]["total_tokens"] == found["whole"]["usage"]["total_tokens"]
    assert float(found["cost"]) > 0
    assert found["tool"] == {"name": "weather", "arguments": {"city": "simulated"}}
    assert found["answered"] == "stop"
    assert found["parsed"] == {"dollars": 1}
    assert found["seen"] > found["whole"]["usage"]["prompt_tokens"]
    assert "auto" in found["models"]
    assert found["error"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found"}
    assert found["denied"] == {"kind": "AuthenticationError", "status": 401, "code": "invalid_api_key"}

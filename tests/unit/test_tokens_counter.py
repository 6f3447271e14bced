"""Counting, estimating and learning: exact where providers are exact, bounded elsewhere, and nearly free."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from gateway.errors import InvalidRequest
from gateway.tokens import FAMILIES, Counter, encodings, family_of, simulated_input_tokens
from gateway.tokens.content import CONTEXT_UNKNOWN
from gateway.tokens.counter import INLINE_CHARS
from gateway.tokens.memo import Memo, Tally
from gateway.types import Deployment, Format, Key, Provider, Request

KEY = Key("k", "t", "test", b"")
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "City name"}},
        "required": ["location"],
    },
}


def deployment(model="gpt-4o", dialect="openai", **fields):
    return Deployment(f"{dialect}-{model}", Provider("p", dialect), model, **fields)


def asked(body, format=Format.CHAT):  # noqa: A002  # the noun
    raw = orjson.dumps(body)
    return Request("r", format, raw, orjson.loads(raw), "m", stream=False, received=0.0, key=KEY)


def chat(*texts, **fields):
    return {"messages": [{"role": "user", "content": text} for text in texts], **fields}


@pytest.fixture
def counter():
    made = Counter([deployment(), deployment("gpt-4")])
    yield made
    made.close()


async def estimate(counter, body, where, format=Format.CHAT):  # noqa: A002  # the noun
    return counter.estimate(await counter.content(asked(body, format)), where)


@pytest.mark.parametrize(
    ("model", "encoding", "tail"),
    [
        ("gpt-4o", "o200k_base", 3),
        ("gpt-4", "cl100k_base", 3),
        ("gpt-5-mini", "o200k_base", 2),
        ("o3", "o200k_base", 2),
    ],
)
async def test_openai_text_is_exact(counter, model, encoding, tail):
    texts = ["Who won the world series in 2020?", "Grüße aus Köln, und 12345 Äpfel"]
    tokens = sum(encodings.count(text, encoding) for text in texts)
    assert (await estimate(counter, chat(*texts), deployment(model))).expected == tokens + 4 * 2 + tail


async def test_recorded_openai_requests_are_counted_within_two_tokens(counter):
    assert (
        await estimate(counter, chat("Who won the world series in 2020?"), deployment("gpt-3.5-turbo"))
    ).expected == 17
    add = {
        "name": "add",
        "description": "Add two integers",
        "parameters": {
            "additionalProperties": False,
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "type": "object",
        },
    }
    asked_for = "Use the add tool to compute 2 + 3. After the tool result arrives, respond with 'sum=<value>'."
    named = {"type": "function", "function": {"name": "add"}}
    body = chat(asked_for, tools=[{"type": "function", "function": add}], tool_choice=named)
    assert abs((await estimate(counter, body, deployment("gpt-4o"))).expected - 79) <= 2


async def test_the_same_conversation_costs_more_on_claude_and_most_on_the_newest(counter):
    body = chat("In one or two sentences, explain what Rust is and why memory safety matters. " * 10)
    models = ["gpt-4o", "claude-sonnet-4-5", "claude-opus-4-8"]
    found = [(await estimate(counter, body, deployment(model))).expected for model in models]
    assert found == sorted(found)
    assert found[2] / found[0] == pytest.approx(1.4, abs=0.02)


async def test_claudes_tool_prompt_is_in_the_estimate(counter):
    plain = chat("hi")
    tooled = {**plain, "tools": [{"type": "function", "function": WEATHER}]}
    claude = deployment("claude-haiku-4-5", "anthropic")
    more = (await estimate(counter, tooled, claude)).expected - (await estimate(counter, plain, claude)).expected
    assert 530 < more < 600


async def test_the_same_tools_are_the_same_tokens_in_both_client_formats(counter):
    chatting = chat("hi", tools=[{"type": "function", "function": WEATHER}])
    messages = chat(
        "hi", tools=[{**{k: v for k, v in WEATHER.items() if k != "parameters"}, "input_schema": WEATHER["parameters"]}]
    )
    one = await counter.content(asked(chatting))
    other = await counter.content(asked(messages, Format.MESSAGES))
    assert (one.tools_json, one.tools_namespace) == (other.tools_json, other.tools_namespace)


@pytest.mark.parametrize("format", [Format.CHAT, Format.MESSAGES])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"tools": [{"type": "function", "function": WEATHER, "name": "w", "input_schema": {"type": "object"}}]},
        {"reasoning_effort": "high", "thinking": {"type": "enabled"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
    ],
    ids=["text", "tools", "thinking", "schema"],
)
async def test_the_simulated_provider_is_estimated_to_the_token_and_never_learned(counter, format, extra):  # noqa: A002  # the noun
    body = chat("hello there", "and more", **extra)
    if "tools" in extra and format is Format.MESSAGES:
        body["tools"] = [{"name": "w", "input_schema": {"type": "object"}}]
    where = deployment("anything", "simulated")
    exact = simulated_input_tokens(format, body)
    for _ in range(3):
        found = await estimate(counter, body, where, format)
        assert found.expected == found.bound == exact
        counter.learn(where, await counter.content(asked(body, format)), 10_000)


async def test_simulated_text_is_o200k_and_four_a_message_and_three():
    assert simulated_input_tokens(Format.CHAT, chat("hello there")) == encodings.count("hello there") + 4 + 3


# Bounds


async def test_a_bound_never_passes_the_bytes_and_what_the_family_hides(counter):
    body = chat("a")
    size = len(orjson.dumps(body))
    for family in FAMILIES.values():
        where = deployment("x", tokenizer=family.name)
        found = await estimate(counter, body, where)
        hidden = family.start + family.unsystem + family.message + family.slack + family.thinking + family.cited
        assert found.expected <= found.bound <= size + hidden + 1


async def test_what_only_the_provider_can_see_is_bounded_by_the_context(counter):
    body = chat("hi", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    claude = deployment("claude-sonnet-4-5", "anthropic", context_max=150_000)
    assert (await estimate(counter, body, claude, Format.MESSAGES)).bound == 150_000
    unknown = deployment("claude-opus-4-5", "anthropic")
    assert (await estimate(counter, body, unknown, Format.MESSAGES)).bound == CONTEXT_UNKNOWN


async def test_a_megabyte_of_picture_is_not_a_million_tokens(counter):
    url = PIXEL + "A" * 1_000_000
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    found = await estimate(counter, body, deployment("gpt-4o"))
    assert found.expected == 255 + 4 + 3
    assert found.bound < 400


# Learning


def reports(counter, where, content, tokens, times):
    for _ in range(times):
        counter.learn(where, content, tokens)


async def test_a_hidden_prompt_is_learned_after_twenty_reports(counter):
    where = deployment("gpt-4o")
    content = await counter.content(asked(chat("hi")))
    reports(counter, where, content, 508, 20)
    found = counter.estimate(content, where)
    assert found.expected == pytest.approx(508, rel=0.02)
    assert found.bound >= 508


async def test_another_vocabulary_is_learned_as_a_ratio(counter):
    where = deployment("house-model")
    contents = [await counter.content(asked(chat("word " * n))) for n in (50, 200, 800, 100, 400, 1600)]
    guesses = [counter.estimate(content, where).expected for content in contents]
    for content, guess in zip(contents * 6, guesses * 6, strict=True):
        counter.learn(where, content, round(guess * 1.3))
    new = await counter.content(asked(chat("word " * 3000)))
    plain = Counter()
    assert counter.estimate(new, where).expected == pytest.approx(1.3 * plain.estimate(new, where).expected, rel=0.03)
    plain.close()


async def test_one_odd_report_moves_the_estimate_little_and_is_bounded_for_a_while(counter):
    where = deployment("gpt-4o")
    content = await counter.content(asked(chat("word " * 100)))
    right = counter.estimate(content, where).expected
    reports(counter, where, content, right, 30)
    counter.learn(where, content, right * 3)
    odd = counter.estimate(content, where)
    assert odd.expected == pytest.approx(right, rel=0.02)
    assert odd.bound >= 1.5 * right
    reports(counter, where, content, right, 500)
    assert counter.estimate(content, where).bound < 1.1 * right + 20


async def test_tools_schemas_thinking_and_pictures_are_learned_apart(counter):
    where = deployment("claude-sonnet-4-5", "anthropic")
    plain = await counter.content(asked(chat("hi")))
    others = [
        await counter.content(asked(chat("hi", **extra)))
        for extra in (
            {"tools": [{"type": "function", "function": WEATHER}]},
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
            {"reasoning_effort": "low"},
        )
    ]
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}
    others.append(await counter.content(asked({"messages": [picture]})))
    before = [counter.estimate(content, where) for content in others]
    reports(counter, where, plain, 5_000, 30)
    assert [counter.estimate(content, where) for content in others] == before
    assert counter.estimate(plain, where).expected > 4_000


async def test_one_deployment_learns_nothing_from_another(counter):
    content = await counter.content(asked(chat("hi")))
    other = deployment("gpt-4o-mini")
    before = counter.estimate(content, other)
    reports(counter, deployment("gpt-4o"), content, 900, 30)
    assert counter.estimate(content, other) == before


@pytest.mark.parametrize("reported", [0, -9])
async def test_a_report_of_nothing_teaches_nothing(counter, reported):
    where, content = deployment(), await counter.content(asked(chat("hi")))
    before = counter.estimate(content, where)
    counter.learn(where, content, reported)
    assert counter.estimate(content, where) == before


async def test_what_only_the_provider_can_see_teaches_nothing(counter):
    where = deployment("claude-sonnet-4-5", "anthropic")
    searching = chat("hi", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    content = await counter.content(asked(searching, Format.MESSAGES))
    before = counter.estimate(content, where)
    reports(counter, where, content, 30_000, 20)
    assert counter.estimate(content, where) == before


# Families


@pytest.mark.parametrize(
    ("model", "dialect", "family"),
    [
        ("gpt-4o-mini-2024-07-18", "openai", "gpt-4o-mini"),
        ("gpt-4-turbo", "openai", "gpt-4"),
        ("gpt-5-chat-latest", "openai", "gpt-4o"),
        ("gpt-5.4", "openai", "gpt-5.4"),
        ("openai/gpt-5", "openai", "gpt-5-responses"),
        ("o4-mini", "openai", "o4-mini"),
        ("gpt-oss:120b", "openai", "gpt-oss"),
        ("anthropic/claude-sonnet-4.5", "openai", "claude-4.5"),
        ("us.anthropic.claude-opus-4-20250514-v1:0", "openai", "claude-4"),
        ("claude-opus-4-7", "anthropic", "claude-5"),
        ("claude-sonnet-5", "anthropic", "claude-5"),
        ("claude-3-haiku-20240307", "anthropic", "claude-3-haiku"),
        ("house-alias", "anthropic", "claude"),
        ("google/gemini-2.5-flash", "openai", "gemini-2.5"),
        ("meta-llama/Llama-3.3-70B-Instruct", "openai", "llama"),
        ("mixtral-8x7b", "openai", "mistral"),
        ("grok-4-fast", "openai", "grok-4-fast"),
        ("deepseek-chat", "openai", "deepseek"),
        ("house-model", "openai", "unknown"),
        ("gpt-4o", "simulated", "simulated"),
    ],
)
def test_a_family_is_found_by_the_models_name(model, dialect, family):
    assert family_of(deployment(model, dialect)).name == family


def test_a_deployments_own_tokenizer_goes_before_the_table():
    assert family_of(deployment("gpt-4o", tokenizer="claude")).name == "claude"
    assert family_of(deployment("house-model", tokenizer="cl100k_base")).encoding == "cl100k_base"


def test_a_tokenizer_nobody_knows_is_refused_when_serving_starts():
    with pytest.raises(ValueError, match=r"openai-m: no tokenizer 'klingon'; known: .*claude"):
        Counter([deployment("m", tokenizer="klingon")])


async def test_a_reload_changes_a_deployments_family(counter):
    content = await counter.content(asked(chat("word " * 1000)))
    old = counter.estimate(content, deployment("m", tokenizer="gpt-4o")).expected
    assert counter.estimate(content, deployment("m", tokenizer="claude-5")).expected > 1.3 * old


# Memo and event loop


def test_cl100k_is_loaded_only_when_a_deployment_needs_it(monkeypatch):
    loaded = []
    real = encodings.load
    monkeypatch.setattr(encodings, "load", lambda name: loaded.append(name) or real(name))
    Counter([deployment("gpt-4o"), deployment("claude-sonnet-4-5", "anthropic")]).close()
    assert loaded == ["o200k_base"]
    Counter([deployment("gpt-4")]).close()
    assert loaded[1:] == ["o200k_base", "cl100k_base"]


async def test_a_conversations_earlier_turns_are_not_counted_again(counter, monkeypatch):
    turns = [f"turn {i} of a long conversation" for i in range(20)]
    await counter.content(asked(chat(*turns)))
    counted = []
    real = encodings.count
    monkeypatch.setattr(counter._tallies["o200k_base"], "_count", lambda text: counted.append(text) or real(text))
    await counter.content(asked(chat(*turns, "a new one")))
    assert counted == ["a new one"]


async def test_a_tool_list_is_counted_once(counter, monkeypatch):
    body = chat("hi", tools=[{"type": "function", "function": WEATHER}])
    first = await counter.content(asked(body))

    def refuse(*_):
        raise AssertionError("counted again")

    monkeypatch.setattr("gateway.tokens.counter._tool_tokens", refuse)
    assert (await counter.content(asked(body))).tools_json == first.tools_json


def test_a_memo_is_bounded_and_keeps_what_is_used():
    memo: Memo[int] = Memo(100)
    for i in range(10_000):
        memo.of(f"new {i}", lambda: 0)
        assert memo.of("often", lambda i=i: i) == 0  # computed once, when i was 0
        assert len(memo) <= 100
    assert not memo.knows("new 9000")


def test_a_tally_remembers_a_count_of_zero():
    counted = []
    tally = Tally(10, lambda text: counted.append(text) or 0)
    assert tally.total(["", "", ""]) == 0
    assert counted == [""]


def at_once(coroutine):
    """What the coroutine returns; fails if it ever yields to an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it yielded")


def test_a_short_or_known_request_is_counted_without_leaving_the_loop(counter):
    short = at_once(counter.content(asked(chat("hi " * 1000))))
    assert short.text["o200k_base"] > 900
    long = "known before " * 8_000
    for tally in counter._tallies.values():
        tally.total([long])
    assert at_once(counter.content(asked(chat(long, "and more")))).facts.messages == 2


HEAVY = {unit: chat(unit * (1_000_000 // len(unit.encode()))) for unit in ("x", " ", "word ", "字")}
HEAVY["tiny messages"] = chat(*["a"] * 60_000)


@pytest.mark.parametrize("body", HEAVY.values(), ids=[ascii(name) for name in HEAVY])
async def test_the_loop_is_not_held_while_megabytes_are_read_and_counted(counter, body):
    request = asked(body)
    laps = 0

    async def heartbeat():
        nonlocal laps
        while True:
            laps += 1
            await asyncio.sleep(0)

    beat = asyncio.create_task(heartbeat())
    content = await counter.content(request)
    beat.cancel()
    assert content.text["o200k_base"] > 1_000
    assert laps > 10


async def test_a_long_wrong_request_is_refused_like_a_short_one(counter):
    body = chat("x" * 400_000, max_tokens=1)
    body["messages"].append({"role": "user", "content": 7})
    with pytest.raises(InvalidRequest) as refusal:
        await counter.content(asked(body))
    assert refusal.value.param == "messages[1].content"


def test_counting_a_known_request_costs_microseconds(counter):
    body = chat("You are helpful. " * 15, "The quick brown fox jumps over the lazy dog. " * 140)
    where = deployment()
    content = at_once(counter.content(asked(body)))
    requests = [asked(body) for _ in range(200)]
    began = time.process_time()
    for request in requests:
        content = at_once(counter.content(request))
    each = (time.process_time() - began) / 200
    began = time.process_time()
    for _ in range(2_000):
        counter.estimate(content, where)
    estimating = (time.process_time() - began) / 2_000
    assert each < 150e-6  # 6 us measured; the test only guards against a mistake of an order of magnitude
    assert estimating < 30e-6  # 1.4 us measured


async def test_generated_text_is_counted_by_the_family(counter):
    text = "some words that were generated before the stream broke " * 10
    plain = encodings.count(text)
    assert counter.count_text(text, deployment("gpt-4o")) == plain
    assert counter.count_text(text, deployment("claude-sonnet-5", "anthropic")) == pytest.approx(1.4 * plain, abs=1)
    assert counter.count_text("", deployment("gpt-4o")) == 0
    long = text * (1 + 2 * INLINE_CHARS // len(text))
    assert await counter.count_long_text(long, deployment("gpt-4o")) == encodings.count(long)

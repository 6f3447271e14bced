"""Whatever the JSON: an answer or an InvalidRequest that names the field, never anything else."""

from __future__ import annotations

import asyncio
import copy
import math

import orjson
import pytest
from hypothesis import given, settings, strategies as st

from gateway.errors import InvalidRequest
from gateway.tokens import Counter, encodings, simulated_input_tokens
from gateway.tokens.calibration import Calibration
from gateway.tokens.encodings import PIECE_CHARS
from gateway.tokens.images import dimensions, from_base64, from_url
from gateway.types import Deployment, Format, Key, Provider, Request

KEY = Key("k", "t", "test", b"")
MODELS = ["gpt-4o", "gpt-4", "claude-sonnet-4-5", "gemini-2.5-flash", "house-model"]
WHERE = [Deployment(model, Provider("p", "openai"), model) for model in MODELS]
SIMULATED = Deployment("s", Provider("p", "simulated"), "s")

scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=8)
json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)

TOOL = {
    "type": "object",
    "properties": {"a": {"type": ["string", "null"], "enum": ["x", 1]}, "b": {"$ref": "#/$defs/B"}},
}
FULL = {
    Format.CHAT: {
        "model": "m",
        "max_tokens": 10,
        "n": 2,
        "reasoning_effort": "low",
        "reasoning": {"effort": "low"},
        "modalities": ["text"],
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "name": "n",
                "content": [
                    {"type": "text", "text": "t"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    {"type": "file", "file": {"file_data": "AAAA"}},
                    {"type": "video_url", "video_url": {"url": "https://x"}},
                ],
            },
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": TOOL}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": TOOL}},
        "thinking": {"type": "enabled"},
    },
    Format.MESSAGES: {
        "model": "m",
        "max_tokens": 10,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "data": "R0lGODlh"}},
                    {
                        "type": "document",
                        "title": "t",
                        "citations": {"enabled": True},
                        "source": {"type": "text", "data": "d"},
                    },
                    {"type": "tool_result", "content": [{"type": "text", "text": "r"}]},
                    {"type": "tool_use", "name": "f", "input": {"a": 1}},
                ],
            }
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": TOOL}, {"type": "computer_20250124", "name": "c"}],
        "tool_choice": {"type": "tool", "name": "f"},
        "output_config": {"format": {"type": "json_schema", "schema": TOOL}},
        "thinking": {"type": "adaptive"},
    },
}


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def altered(body, path, value):
    body = copy.deepcopy(body)
    holder = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return body


@pytest.fixture(scope="module")
def counter():
    made = Counter(WHERE)
    yield made
    made.close()


def holds(counter, format, body):  # noqa: A002  # the noun
    """Counts, estimates everywhere and learns; or is refused, by `simulated_input_tokens` likewise."""
    raw = orjson.dumps(body)
    request = Request("r", format, raw, orjson.loads(raw), "m", stream=False, received=0.0, key=KEY)
    try:
        content = asyncio.run(counter.content(request))
    except InvalidRequest:
        with pytest.raises(InvalidRequest):
            simulated_input_tokens(format, request.body)
        return
    for where in WHERE:
        found = counter.estimate(content, where)
        assert 0 < found.expected <= found.bound
        counter.learn(where, content, found.expected + 1)
    assert counter.estimate(content, SIMULATED).bound == simulated_input_tokens(format, request.body)


@given(format=st.sampled_from(list(FULL)), body=json)
def test_any_json_is_counted_or_refused(counter, format, body):  # noqa: A002  # the noun
    holds(counter, format, body)


@settings(max_examples=400)
@given(data=st.data(), format=st.sampled_from(list(FULL)))
def test_a_request_with_anything_anywhere_in_it_is_counted_or_refused(counter, data, format):  # noqa: A002  # the noun
    body = FULL[format]
    path = data.draw(st.sampled_from([path for path in places(body) if path]))
    holds(counter, format, altered(body, path, data.draw(json)))


@pytest.mark.parametrize("format", list(FULL))
def test_the_request_that_is_altered_is_itself_right(counter, format):  # noqa: A002  # the noun
    raw = orjson.dumps(FULL[format])
    asyncio.run(counter.content(Request("r", format, raw, FULL[format], "m", stream=False, received=0.0, key=KEY)))


@given(
    head=st.binary(max_size=64),
    magic=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8", b"RIFF0000WEBPVP8 "]),
)
def test_any_bytes_have_a_sane_size_or_none(head, magic):
    size = dimensions(magic + head)
    assert size is None or all(0 < side <= 100_000 for side in size)


@given(text=st.text(max_size=200))
def test_any_text_is_a_picture_of_some_size_or_unknown(text):
    assert from_base64(text).width >= 0
    assert from_url("data:image/png;base64," + text).width >= 0


@given(unit=st.text(min_size=1, max_size=40), times=st.integers(1, 3_000))
def test_tokens_never_pass_the_utf8_bytes_and_cuts_add_next_to_nothing(unit, times):
    text = (unit * times)[: 4 * PIECE_CHARS]
    pieces = len(text) // (PIECE_CHARS // 2) + 1
    tokens = encodings.count(text)
    assert tokens <= len(text.encode(errors="surrogatepass"))
    assert tokens <= len(encodings.load("o200k_base").encode_ordinary(text)) + 8 * pieces


reports = st.lists(st.tuples(st.floats(0.5, 2e6), st.integers(1, 10**9)), max_size=80)


@given(reports=reports, margin=st.sampled_from([0.06, 0.15, 0.4]), slack=st.sampled_from([8.0, 60.0, 700.0]))
def test_no_reports_however_wild_break_the_calibration(reports, margin, slack):
    calibration = Calibration(margin, slack)
    for estimate, reported in reports:
        calibration.learn(estimate, reported)
        for guess in (1.0, estimate, 2e6):
            expected = calibration.expected(guess)
            assert math.isfinite(expected)
            assert expected >= 1
            assert 0 < calibration.headroom(guess) < math.inf


@given(
    ratio=st.floats(0.5, 2.0),
    offset=st.integers(0, 2_000),
    sizes=st.lists(st.integers(20, 20_000), min_size=10, max_size=10),
    order=st.randoms(use_true_random=False),
)
def test_a_steady_deployment_is_bounded_once_it_is_known(ratio, offset, sizes, order):
    calibration = Calibration(0.15, 30)
    for _ in range(10):
        for size in order.sample(sizes, 10):
            calibration.learn(size, round(offset + ratio * size))
    for size in sizes:
        bound = calibration.expected(size) + max(calibration.headroom(size), calibration.first_headroom(size))
        assert round(offset + ratio * size) <= bound

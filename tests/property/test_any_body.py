"""Whatever a client sends, it gets an answer in its own error shape, and never a 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from harness import ADMIN_KEY, KEY, Visitor, config, gateway
from hypothesis import HealthCheck, given, settings, strategies as st

ENDPOINTS = ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses", "/v1/completions",
             "/v1/embeddings", "/v1/rerank", "/v1/moderations", "/v1/images/generations", "/v1/audio/speech",
             "/v1/audio/transcriptions", "/v1/images/edits", "/v1/images/variations"]  # fmt: skip
NAMES = st.sampled_from(
    ["model", "messages", "role", "content", "type", "text", "image_url", "url", "tools", "function", "name", "system",
     "parameters", "tool_choice", "response_format", "json_schema", "schema", "max_tokens", "stop", "stream", "n",
     "temperature", "metadata", "thinking", "source", "media_type", "data", "input", "tool_calls", "tool_call_id",
     "stream_options", "include_usage", "modalities", "instructions", "output", "call_id", "arguments", "documents",
     "query", "prompt", "size", "quality", "voice", "file", "format", "reasoning", "previous_response_id", "background",
     "service_tier", "cache_control", "user", "logprobs", "audio"]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["auto", "small", "user", "assistant", "tool", "text", "image_url", "function", "data:image/png;base64,xx"]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)
NEARLY = st.builds(
    lambda fields, messages: {"model": "auto", "max_tokens": 20, "messages": messages, **fields},
    st.dictionaries(NAMES, JSON, max_size=4),
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system", "tool"])},
            optional={"content": JSON, "tool_calls": JSON},
        ),
        max_size=3,
    ),
)


class Served:
    """One gateway for many examples: starting it is slower than asking it."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.context = gateway(config(folder, limit="1000"))
        self.running = self.loop.run_until_complete(self.context.__aenter__())

    def ask(self, path: str, body: bytes, key: str = KEY) -> tuple[int, bytes]:
        async def visit() -> Visitor:
            visitor = Visitor(self.running.gateway, path, body, key)
            await asyncio.wait_for(visitor.visit(), 20)
            return visitor

        found = self.loop.run_until_complete(visit())
        return found.status, bytes(found.received)

    def close(self) -> None:
        self.loop.run_until_complete(self.context.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("any"))
    yield found
    found.close()


def dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # beyond 64 bits
        return json.dumps(value).encode()


def answered(status: int, body: bytes) -> None:
    assert status < 500, body
    assert status, "no answer"
    if status >= 400:
        error = orjson.loads(body)["error"]
        assert error["message"]


@pytest.mark.parametrize("path", ENDPOINTS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=NEARLY | JSON)
def test_any_json_gets_an_answer(served: Served, path: str, value: Any) -> None:
    answered(*served.ask(path, dumped(value)))


@pytest.mark.parametrize("path", ENDPOINTS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_any_bytes_get_an_answer(served: Served, path: str, body: bytes) -> None:
    answered(*served.ask(path, body))


@pytest.mark.parametrize("path", ["/admin/v1/tenants", "/admin/v1/budgets", "/admin/v1/tenants/acme/keys"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON)
def test_any_json_to_the_admin_api_gets_an_answer(served: Served, path: str, value: Any) -> None:
    answered(*served.ask(path, dumped(value), ADMIN_KEY))


def test_deep_nesting_is_refused_and_not_a_crash(served: Served) -> None:
    for path in ENDPOINTS:
        answered(*served.ask(path, b'{"model":"auto","messages":' + b"[" * 5000 + b"]" * 5000 + b"}"))

"""Nothing holds the event loop up: what is long is counted on a thread, and a picture is never counted as text."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from harness import Visitor, config, gateway
from vendor import Served, Vendor, served

from gateway.tokens import encodings
from gateway.tokens.counter import INLINE_CHARS
from gateway.types import Outcome

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  east: {{dialect: openai, base_url: "https://east.example/v1", api_key: k, retries_max: 0}}
deployments:
  - {{id: m, provider: east, upstream_model: gpt-4o, price: {{input: 1, output: 1}}, output_max: 200000}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""
STRONG = """  - {id: strong, provider: east, upstream_model: gpt-4.1, price: {input: 9, output: 9}, output_max: 200000}
routes:
  auto: {candidates: [m, strong], policies: [cheapest, {cascade: {strong: strong}}]}
tenants:"""
AUTH = {"authorization": "Bearer key-of-acme"}
LONG = "some words that somebody wrote at length " * 10_000
TOKENS = encodings.count(LONG)
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Tell a long story."}]}
HEAD = {"id": "c", "created": 1, "model": "m"}
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": LONG}, "finish_reason": "stop"}
WHOLE = {**HEAD, "object": "chat.completion", "choices": [MESSAGE]}  # and no usage
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PARTS = [LONG[at : at + 10_000] for at in range(0, len(LONG), 10_000)]


def chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({**HEAD, "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


STREAM = [*map(chunk, PARTS), chunk("", "stop"), b"data: [DONE]\n\n"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[bool, list[int]]:
    """How long the texts were that were counted: on the event loop (True) and elsewhere."""
    found: dict[bool, list[int]] = {True: [], False: []}
    real = encodings.count

    def count(text: str, name: str = encodings.O200K) -> int:
        found[threading.current_thread() is threading.main_thread()].append(len(text))
        return real(text, name)

    monkeypatch.setattr(encodings, "count", count)
    return found


def elsewhere(counted: dict[bool, list[int]]) -> bool:
    """Whether all that was long, and something was, was counted on a thread."""
    return max(counted[True], default=0) <= INLINE_CHARS < max(counted[False], default=0)


def replying(folder: Path, reply: httpx.Response) -> AbstractAsyncContextManager[Served]:
    return served(CONFIG.format(folder=folder), Vendor(replies={"/v1/chat/completions": reply}))


class Told(httpx.AsyncByteStream):
    """A stream that says all of it, and then nothing any more if it is `endless`."""

    def __init__(self, *, endless: bool = False) -> None:
        self.endless = endless

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in STREAM[:-2] if self.endless else STREAM:
            yield event
        if self.endless:
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": LONG}]}),
        ("/v1/responses/input_tokens", {"input": LONG}),
    ],
)
async def test_a_long_question_is_counted_on_a_thread(
    tmp_path: Path, counted: dict[bool, list[int]], path: str, body: dict[str, Any]
) -> None:
    async with replying(tmp_path, httpx.Response(200, json=WHOLE | {"usage": {"prompt_tokens": 7}})) as app:
        reply = await app.http.post(path, json={"model": "m", **body}, headers=AUTH)
        assert reply.status_code == 200, reply.text
    assert elsewhere(counted)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_long_answer_without_usage_is_counted_on_a_thread(
    tmp_path: Path, counted: dict[bool, list[int]], *, stream: bool
) -> None:
    reply = httpx.Response(200, json=WHOLE)
    if stream:
        reply = httpx.Response(200, stream=Told(), headers={"content-type": "text/event-stream"})
    async with replying(tmp_path, reply) as app:
        answer = await app.http.post("/v1/chat/completions", json=ASKED | {"stream": stream}, headers=AUTH)
        assert answer.status_code == 200, answer.text
        [record] = app.records
    assert (record.outcome, record.estimated) == (Outcome.OK, True)
    assert record.tokens["output"] == TOKENS
    assert elsewhere(counted)


async def test_a_long_answer_that_its_client_left_is_counted_on_a_thread_and_charged(
    tmp_path: Path, counted: dict[bool, list[int]]
) -> None:
    reply = httpx.Response(200, stream=Told(endless=True), headers={"content-type": "text/event-stream"})
    async with replying(tmp_path, reply) as app:
        visitor = Visitor(app.gateway, "/v1/chat/completions", orjson.dumps(ASKED | {"stream": True}), "key-of-acme")
        visit = visitor.visit()
        while visitor.received.count(b"\n\n") < len(PARTS):
            visitor.came.clear()
            await visitor.came.wait()
        visitor.leave()
        await asyncio.wait_for(visit, 5)
        [record] = app.records
    assert record.outcome is Outcome.CLIENT_GONE
    assert TOKENS <= record.tokens["output"] < TOKENS + len(PARTS)
    assert elsewhere(counted)


async def test_a_settlement_that_is_cancelled_while_it_counts_is_made_all_the_same(tmp_path: Path) -> None:
    reply = httpx.Response(200, stream=Told(), headers={"content-type": "text/event-stream"})
    async with replying(tmp_path, reply) as app:
        threads, busy = app.gateway.parts.counter._threads, threading.Event()
        threads.submit(busy.wait)
        visitor = Visitor(app.gateway, "/v1/chat/completions", orjson.dumps(ASKED | {"stream": True}), "key-of-acme")
        visit = visitor.visit()
        while threads._work_queue.empty():  # noqa: ASYNC110  # until the answer waits to be counted
            await asyncio.sleep(0)
        visit.cancel()
        await asyncio.wait([visit])
        busy.set()
        [record] = app.records
    assert record.tokens["output"] == TOKENS


async def test_a_client_that_leaves_while_a_poor_answer_is_counted_has_no_other_model_asked(tmp_path: Path) -> None:
    poor = {**WHOLE, "choices": [{**MESSAGE, "finish_reason": "length"}]}
    text = CONFIG.format(folder=tmp_path).replace("price: {input: 1, output: 1}", "price: {input: 0.01, output: 0.01}")
    text = text.replace("tenants:", STRONG)
    async with served(text, Vendor(replies={"/v1/chat/completions": httpx.Response(200, json=poor)})) as app:
        threads, busy = app.gateway.parts.counter._threads, threading.Event()
        threads.submit(busy.wait)
        visitor = Visitor(app.gateway, "/v1/chat/completions", orjson.dumps(ASKED | {"model": "auto"}), "key-of-acme")
        visit = visitor.visit()
        while threads._work_queue.empty():  # noqa: ASYNC110  # until the answer waits to be counted
            await asyncio.sleep(0)
        visitor.leave()
        while not visit.cancelling():  # noqa: ASYNC110  # until that is known
            await asyncio.sleep(0)
        busy.set()
        await asyncio.wait_for(visit, 5)
        [record] = app.records
        assert [body["model"] for _, _, body in app.vendor.calls] == ["gpt-4o"]
    assert (record.outcome, record.deployment) == (Outcome.CLIENT_GONE, "m")
    assert record.tokens["output"] == TOKENS


async def test_a_picture_of_megabytes_is_never_counted_as_text(tmp_path: Path) -> None:
    picture = base64.b64encode(PNG + os.urandom(6_000_000)).decode()
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, shown]}
    body = orjson.dumps({"model": "small", "messages": [message], "max_tokens": 5})
    took = []
    async with gateway(config(tmp_path)) as running:
        for _ in range(3):
            visitor = Visitor(running.gateway, "/v1/chat/completions", body)
            began = time.process_time()
            await visitor.visit()
            took.append(time.process_time() - began)
            assert visitor.status == 200
    assert min(took) < 0.3  # 0.03 s on a quiet core, the simulated provider's reading included; as text it is 0.7 s

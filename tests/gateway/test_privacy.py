"""What stays out of storage, logs and metrics, and which addresses are never called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness import config, gateway
from served import served

SAID = "a-sentence-nobody-else-may-read"
KEY = "key-of-acme"


def on_disk(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[str]]]:
    """A server that redirects to itself, and the first line of everything it was asked."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        port = writer.get_extra_info("sockname")[1]
        location = f"http://127.0.0.1:{port}/elsewhere"
        writer.write(f"HTTP/1.1 307 Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_of_a_conversation_is_on_disk_in_the_log_or_in_a_metric(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], stream: bool
) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&echo=1")) as running:
        reply = await running.chat(text=SAID, stream=stream)
        assert reply.status_code == 200
        assert stream or SAID in reply.text
        failed = await running.chat(text=SAID, max_tokens=SAID)
        assert failed.status_code == 400
        metrics = (await running.client.get("/metrics")).text
        assert "tollgate_requests_total" in metrics
    assert SAID not in metrics
    assert SAID not in "".join(capfd.readouterr())
    kept = on_disk(tmp_path)
    assert kept
    assert not [name for name, data in kept.items() if SAID.encode() in data]


async def test_an_address_in_a_request_is_never_called(tmp_path: Path) -> None:
    async with listener() as (port, asked), gateway(config(tmp_path)) as running:
        url = f"http://127.0.0.1:{port}/inner"
        content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        body = {"model": "auto", "messages": [{"role": "user", "content": content}], "max_tokens": 10}
        headers = {"authorization": "Bearer test-key-of-acme", "x-tollgate-route": url, "referer": url}
        for more in ({}, {"base_url": url}, {"api_base": url}, {"webhook": url}):
            reply = await running.client.post("/v1/chat/completions", content=json.dumps(body | more), headers=headers)
            assert reply.status_code in {200, 400, 404}
    assert asked == []


async def test_a_redirect_is_never_followed(tmp_path: Path) -> None:
    async with listener() as (port, asked):
        text = f"""
database: sqlite:///{tmp_path}/t.db
spool: {tmp_path}/spool
providers: {{p: {{dialect: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: sk-x, retries_max: 0}}}}
deployments: [{{id: d, provider: p, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 100}}]
tenants: [{{id: acme, keys: [{{name: prod, key: {KEY}}}]}}]
"""
        async with served(text) as running:
            reply = await running.chat("d", key=KEY)
    assert reply.status_code == 502
    assert asked == ["POST /v1/chat/completions HTTP/1.1\r\n"]

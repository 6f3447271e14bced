"""What clients send is bounded in memory and in time, and one tenant leaves room for others: on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from harness import CONFIG as USUAL
from served import Served, served

from gateway import settings
from gateway.settings import SettingsError

KEY, OTHER = "test-key-of-acme", "test-key-of-other"
MOST = 1_000_000
PART = 60_000
SERVER = "\nserver: {{bodies_bytes_max: {most}, request_bytes_max: 200000, timeouts: {{body_s: {body_s}}}}}\n"
TENANT = f"  - {{id: other, keys: [{{name: prod, key: {OTHER}}}]}}\n"


def config(folder: Path, body_s: float = 60.0) -> str:
    usual = USUAL.format(folder=folder, limit=100, script="?first_token_ms=0").rstrip()
    return usual + "\n" + TENANT + SERVER.format(most=MOST, body_s=body_s)


BODY = orjson.dumps({"model": "small", "max_tokens": 5, "messages": [{"role": "user", "content": "x" * 2 * PART}]})


class Upload:
    """A client that sends a part of its body, and the rest when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def status(self) -> tuple[int, dict[str, str]]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), headers

    async def rest(self) -> tuple[int, dict[str, str]]:
        self.writer.write(BODY[PART:])
        return await self.status()


@asynccontextmanager
async def uploads(gateway: Served, count: int, key: str = KEY) -> AsyncIterator[list[Upload]]:
    found = []
    for _ in range(count):
        upload = Upload(*await asyncio.open_connection("127.0.0.1", gateway.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        upload.writer.write(f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY[:PART])
        found.append(upload)
    yield found
    for upload in found:
        upload.writer.close()


async def received(gateway: Served, size: int) -> None:
    room = gateway.gateway.parts.room
    async with asyncio.timeout(30):
        while room.taken < size:  # noqa: ASYNC110  # it is no event: bytes arrive
            await asyncio.sleep(0.005)
    assert room.taken == size


async def test_slow_uploads_past_the_bound_get_503_and_those_before_them_are_served(tmp_path: Path) -> None:
    fit = MOST // 2 // PART
    async with served(config(tmp_path)) as gateway, uploads(gateway, fit) as first:
        await received(gateway, fit * PART)
        async with uploads(gateway, 20) as late:
            for upload in late:
                status, headers = await upload.status()
                assert status == 503
                assert int(headers["retry-after"]) >= 1
                assert headers["x-should-retry"] == "true"
        assert gateway.gateway.parts.room.taken == fit * PART
        for upload in first[1:]:
            upload.writer.close()
        await left(gateway, PART)
        assert (await first[0].rest())[0] == 200
        await left(gateway, 0)


async def test_one_tenants_uploads_leave_room_for_anothers(tmp_path: Path) -> None:
    fit = MOST // 2 // PART
    async with served(config(tmp_path)) as gateway, uploads(gateway, fit) as storm:
        await received(gateway, fit * PART)
        assert (await gateway.chat("small", key=KEY, user="x" * 40_000)).status_code == 503
        assert (await gateway.chat("small", key=OTHER, user="x" * 40_000)).status_code == 200
        assert storm


async def test_a_body_that_does_not_come_in_time_is_given_up(tmp_path: Path) -> None:
    async with served(config(tmp_path, body_s=0.2)) as gateway, uploads(gateway, 3) as slow:
        for upload in slow:
            assert (await upload.status())[0] == 408
        await left(gateway, 0)
        assert gateway.records == []


def test_room_for_less_than_two_requests_is_a_mistake_that_is_named(tmp_path: Path) -> None:
    text = config(tmp_path).replace("request_bytes_max: 200000", "request_bytes_max: 600000")
    with pytest.raises(SettingsError, match=r"bodies_bytes_max.*1200000"):
        settings.parse(text, {})


async def left(gateway: Served, size: int) -> None:
    """Until no more than `size` bytes are held."""
    async with asyncio.timeout(30):
        while gateway.gateway.parts.room.taken > size:  # noqa: ASYNC110  # it is no event: clients leave
            await asyncio.sleep(0.005)
    assert gateway.gateway.parts.room.taken == size

"""Recorded replies played back over TCP, and a configuration of a gateway whose every deployment is the player.

A client's prompt names what it wants: `replay:ID:HOW`, the id of a recording and how its bytes are cut.  The player
finds that in whatever the gateway makes of the prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import corpus
import surfaces
from corpus import Row
from surfaces import NO_PRESET, RESPONSES_TOO, Surface

from gateway.configuration import presets

KEY = "replay-client-key"
WANTED = re.compile(rb"replay:([0-9a-f]{16}):(\w+)")
WRITE_BYTES = 1 << 16

PRICE = {
    "input": 1,
    "cache_read": 0.1,
    "cache_write_5m": 1.25,
    "cache_write_30m": 1.5,
    "cache_write_1h": 2,
    "output": 4,
    "reasoning": 5,
    "audio_in": 6,
    "audio_cache_read": 0.6,
    "audio_out": 12,
    "image_in": 3,
    "image_out": 30,
    "video_in": 7,
}
ALIAS = "the same for all"
FEES = {"web_search": 0.01, "search_source": 0.02, "image": 0.03}

OWN = {"connection", "content-encoding", "content-length", "date", "keep-alive", "set-cookie", "transfer-encoding"}
"""Headers of the recorded connection, and not of the reply."""

TYPES = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "aws-eventstream": "application/vnd.amazon.eventstream",
}


Alter = Callable[[Row], bytes]


def prompt(row: Row, how: str) -> str:
    """What asks for this recording; `how` is whole, bytes, random or a name of the test's own."""
    return f"replay:{row['id']}:{how}"


@dataclass
class Player:
    """Serves recordings; `altered` says what is played instead of the recorded body where `how` is a test's own."""

    rows: Mapping[str, Row]
    altered: Mapping[str, Alter] = field(default_factory=dict)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it is kept."""
        try:
            while (body := await _asked(reader)) is not None:
                found = WANTED.search(body)
                assert found is not None, body[:500]
                await self._play(self.rows[found[1].decode()], found[2].decode(), writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway has read enough
        finally:
            writer.close()

    async def _play(self, row: Row, how: str, writer: asyncio.StreamWriter) -> None:
        data = self.altered[how](row) if how in self.altered else recorded(row)
        streams = surfaces.streams(row)
        framing = b"transfer-encoding: chunked" if streams else b"content-length: %d" % len(data)
        lines = [b"%b: %b" % (name.encode(), value.encode("latin-1", "replace")) for name, value in headers(row)]
        writer.write(b"HTTP/1.1 %d Words\r\n%b\r\n\r\n" % (row["response_status"], b"\r\n".join([*lines, framing])))
        waiting = 0
        for piece in _cut(data, how):
            frame = b"%x\r\n%b\r\n" % (len(piece), piece) if streams else piece
            writer.write(frame)
            waiting += len(frame)
            if how == "random" or waiting > WRITE_BYTES:
                await writer.drain()
                await asyncio.sleep(0)  # so that it leaves by itself
                waiting = 0
        if streams:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


def recorded(row: Row) -> bytes:
    """The bytes of the reply; sound was not kept."""
    return b"\xff\xf3sound" if row["response_format"] == "binary" else corpus.body(row)


async def _asked(reader: asyncio.StreamReader) -> bytes | None:
    """The body of the next request; None when there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
    assert length is not None, head
    return await reader.readexactly(int(length[1]))


def _cut(data: bytes, how: str) -> Iterator[bytes]:
    if how == "bytes":
        yield from (data[at : at + 1] for at in range(len(data)))
    elif how == "random":
        yield from corpus.pieces(data, seed=len(data))
    elif data:
        yield data


def headers(row: Row) -> Iterator[tuple[str, str]]:
    """As recorded; how much of its limits an account has left is another day's affair."""
    yield "content-type", TYPES.get(row["response_format"], "application/json")
    for name, value in (row.get("response_headers") or {}).items():
        known = name.lower()
        limits = row["response_status"] < 300 and "ratelimit" in known
        if known not in OWN and known != "content-type" and not limits and "\n" not in str(value):
            yield known, str(value)


@asynccontextmanager
async def playing(rows: Iterable[Row], altered: Mapping[str, Alter] | None = None) -> AsyncIterator[Player]:
    """A player of these rows on a free port."""
    player = Player({row["id"]: row for row in rows}, altered or {})
    server = await asyncio.start_server(player.serve, "127.0.0.1", 0, limit=1 << 24)
    player.port = server.sockets[0].getsockname()[1]
    yield player
    server.close()


def place(row: Row, at: Surface, alone: str = "") -> str:
    """The id of the deployment of such a reply; `alone`: of this one only, for a failure shuts others out."""
    name = f"{row['id']}-{alone}" if alone else hashlib.sha256(f"{at.preset}:{_model(row)}".encode()).hexdigest()[:16]
    return f"d-{name}"


def _model(row: Row) -> str:
    return str(row["model"] or "unsaid")[:100]


def config(places: Mapping[str, tuple[Row, Surface]], url: str) -> str:
    """A gateway whose deployments, by id, are all the player at `url`."""
    providers = {_id(at.preset): _provider(at.preset, url) for _, at in places.values()}
    limits = {"context_max": 10_000_000, "output_max": 10_000}
    deployments = [
        {"id": id_, "provider": _id(at.preset), "upstream_model": _model(row), "price": ALIAS, **limits}
        for id_, (row, at) in places.items()
    ]
    tenant = {
        "id": "acme",
        "keys": [{"name": "test", "key": KEY}],
        "budgets": [{"limit_usd": 1_000_000, "window": "day"}],
        "drop_params": True,
    }
    written = {
        "database": "sqlite:///{folder}/tollgate.db",
        "spool": "{folder}/spool",
        "providers": providers,
        "deployments": deployments,
        "tenants": [tenant],
    }
    price = json.dumps({**PRICE, "fees": FEES})
    return json.dumps(written).replace(f'"{ALIAS}"', f"&price {price}", 1).replace(f'"{ALIAS}"', "*price ")


def _id(preset: str) -> str:
    return "own" if preset == NO_PRESET else preset


def _provider(preset: str, url: str) -> dict[str, Any]:
    """As the preset has it, but for the credentials: nobody is asked for a token here."""
    found: dict[str, Any] = {"base_url": url, "api_key": "replayed-key", "retries_max": 0}
    if preset == NO_PRESET:
        return found | {"dialect": "openai", "options": {"paths": RESPONSES_TOO}}
    known = presets.known(None, {}).providers[preset]
    options = {name: value for name, value in known.options.items() if name != "credentials"}
    return found | {"dialect": known.dialect, "options": options}

"""Recorded provider traffic, and what a dialect needs to read it.

The recordings stay where they are (`TOLLGATE_DATA`, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gateway.dialects.base import Decoder
from gateway.plan import Step
from gateway.types import Deployment, Estimate, Format, Key, Provider, Request

DATA = Path(os.environ.get("TOLLGATE_DATA") or Path(__file__).parents[3] / "shared" / "data")
CORPUS = DATA / "wire_dev.jsonl.gz"

Row = dict[str, Any]


def every_line() -> Iterator[Row]:
    """Each recorded exchange, those without a body too; read from the file, for all of them are a lot to keep."""
    if not CORPUS.exists():
        pytest.skip(f"no recorded traffic at {CORPUS}")
    with gzip.open(CORPUS, "rt") as lines:
        yield from map(json.loads, lines)


@cache
def rows(kind: str) -> list[Row]:
    """Every recorded exchange of this kind that has a body."""
    if not CORPUS.exists():
        pytest.skip(f"no recorded traffic at {CORPUS}")
    with gzip.open(CORPUS, "rt") as lines:
        found = [row for line in lines if f'"{kind}"' in line and (row := json.loads(line))["kind"] == kind]
    return [row for row in found if row.get("response_body") != "<BINARY bytes=0>"]


def streamed(kind: str) -> list[Row]:
    """Those that are good streams."""
    return [row for row in rows(kind) if row["response_status"] == 200 and row["streaming"]]


def whole(kind: str) -> list[Row]:
    """Those that are good replies in one piece."""
    return [row for row in rows(kind) if row["response_status"] == 200 and not row["streaming"]]


def refused(kind: str) -> list[Row]:
    """Those with an error status."""
    return [row for row in rows(kind) if row["response_status"] >= 400]


def body(row: Row) -> bytes:
    """The reply's bytes."""
    if "response_raw_b64" in row:
        return base64.b64decode(row["response_raw_b64"])
    if row["response_format"] == "ndjson":
        return b"".join(line.encode() + b"\n" for line in row["response_events"])
    if "response_events" in row:
        return b"".join(event.encode() + b"\n\n" for event in row["response_events"])
    if row["response_format"] == "text":
        return base64.b64decode(row["response_body"])
    return json.dumps(row["response_body"], ensure_ascii=False).encode()


def usage_blocks(row: Row) -> list[dict[str, Any]]:
    """Every usage block the recorded reply holds, by a way of reading of our own."""
    texts = [event[event.index("{") :] for event in row.get("response_events", ()) if "{" in event]
    chunks = [json.loads(text) for text in texts] if texts else [row["response_body"]]
    return [chunk["usage"] for chunk in chunks if isinstance(chunk, dict) and chunk.get("usage")]


def request(
    format_: Format, payload: Mapping[str, Any], headers: Mapping[str, str] | None = None, raw: bytes | None = None
) -> Request:
    """A client's request with this body."""
    raw = json.dumps(payload).encode() if raw is None else raw
    stream = bool(payload.get("stream"))
    key = Key("k", "acme", "test", b"")
    return Request("req_1", format_, raw, payload, "m", stream, 1_700_000_000.0, key, headers=headers or {})


def step(provider: Provider, model: str = "gpt-4o-mini", cap: int = 500, **more: Any) -> Step:
    """A step on a deployment of this provider."""
    return Step(Deployment("d", provider, model), Estimate(7, 9), cap, 50, 0.0, **more)


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """The data in random pieces, many of them tiny."""
    dice = random.Random(seed)
    at = 0
    while at < len(data):
        size = dice.choice((1, 2, 3, 40, 400, 4000))
        yield data[at : at + size]
        at += size


def drain(decoder: Decoder, chunks: Iterator[bytes] | list[bytes]) -> bytes:
    """What the client gets of these chunks.  Raises what the decoder raises."""
    return b"".join([decoder.feed(chunk) for chunk in chunks]) + decoder.finish()

"""Embeddings, rerank, moderations, images, sound and legacy completions on recorded traffic."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

import corpus
import pytest
from corpus import Row, drain, pieces, request, step

from gateway.configuration.presets import known
from gateway.dialects import paths
from gateway.dialects.base import Decoder
from gateway.dialects.endpoints import FREE_FORM
from gateway.dialects.openai import OpenAI
from gateway.errors import GatewayError, UpstreamDenied, UpstreamRejected
from gateway.plan import Step
from gateway.tokens.reading import read
from gateway.types import Bucket, Cost, Deployment, Estimate, Format, Price, Provider, Usage

pytestmark = pytest.mark.corpus

DIALECT = OpenAI(clock=lambda: 1_754_667_600.0)
FORMATS = {
    "embeddings": Format.EMBEDDINGS,
    "rerank": Format.RERANK,
    "moderations": Format.MODERATIONS,
    "generations": Format.IMAGES,
    "edits": Format.IMAGE_EDITS,
    "variations": Format.IMAGE_VARIATIONS,
    "transcriptions": Format.TRANSCRIPTIONS,
    "translations": Format.TRANSLATIONS,
    "speech": Format.SPEECH,
    "completions": Format.COMPLETIONS,
}
"""By the end of the URL."""
DRAWN = {Format.IMAGES, Format.IMAGE_EDITS, Format.IMAGE_VARIATIONS}
UNPRICED = Price()
NATIVE = {"google", "vertex", "ollama", "anthropic"}
"""Who has endpoints of these names that are of another shape."""


def format_of(row: Row) -> Format | None:
    path = urlsplit(row["url"]).path
    if row["method"] != "POST" or row["provider"] in NATIVE or "/usage/" in path:
        return None
    return FORMATS.get(path.rsplit("/", 1)[-1])


def recorded(*, good: bool = True) -> list[tuple[Format, Row]]:
    found = []
    for kind in ("embeddings", "rerank", "moderations", "images", "audio", "completions"):
        rows = [row for row in corpus.rows(kind) if (row["response_status"] == 200) is good]
        found += [(format_, row) for row in rows if (format_ := format_of(row)) is not None]
    return found


def asked(row: Row) -> dict[str, Any]:
    body = row["request_body"]
    return body if isinstance(body, dict) else {}


def priced(row: Row, format_: Format, price: Price) -> Step:
    deployment = Deployment("d", Provider(row["provider"], "openai", "https://p.example/v1"), "m", price)
    text = str(asked(row).get("input") or "")
    counts = {Format.SPEECH: {"character": len(text)}, Format.TRANSCRIPTIONS: {"audio_second": 9}}.get(format_, {})
    return Step(deployment, Estimate(7, 9), 500, 50, 0.0, pieces=counts)


def decoder(row: Row, format_: Format, price: Price = UNPRICED) -> Decoder:
    body = {**asked(row), "stream": row["streaming"], "stream_options": {"include_usage": True}}
    return DIALECT.decoder(request(format_, body), priced(row, format_, price), lambda usage: Cost(None))


def reply(row: Row) -> bytes:
    """The reply's bytes; sound is base64 in the recordings, or left out."""
    if isinstance(row.get("response_body"), str):
        text = row["response_body"]
        return b"\xff\xf3sound" if text.startswith("<") else base64.b64decode(text + "==")
    return corpus.body(row)


def final(row: Row) -> dict[str, Any]:
    """What holds the usage, read our own way."""
    if isinstance(row.get("response_body"), dict):
        return dict(row["response_body"])
    found: dict[str, Any] = {}
    for event in row.get("response_events", ()):
        if "{" in event and (chunk := json.loads(event[event.index("{") :])).get("usage"):
            found = chunk
    return found


def test_every_reply_goes_on_as_it_came_however_it_is_split() -> None:
    rows = recorded()
    for format_, row in rows:
        data = reply(row)
        for seed in (0, 1):
            reader = decoder(row, format_)
            assert drain(reader, pieces(data, seed) if seed else [data]) == data, row["id"]
            assert reader.meter.complete
    assert len(rows) > 250


def test_the_tokens_are_those_that_the_reply_reports() -> None:
    counted = 0
    for format_, row in recorded():
        reader = decoder(row, format_)
        drain(reader, [reply(row)])
        usage, block = reader.meter.usage, final(row).get("usage") or {}
        total = block.get("total_tokens")
        if total is None:
            continue
        counted += 1
        assert usage is not None
        assert usage.input_tokens + usage.output_tokens == total, row["id"]
        assert not usage.flags, row["id"]
        assert usage.exact
        out = block.get("output_tokens", block.get("completion_tokens", 0))
        assert usage.output_tokens == out, row["id"]
    assert counted > 180


def test_what_is_reported_as_its_cost_is_kept() -> None:
    found = 0
    for format_, row in recorded():
        cost = (final(row).get("usage") or {}).get("cost")
        if isinstance(cost, int | float):
            found += 1
            reader = decoder(row, format_)
            drain(reader, [reply(row)])
            assert reader.meter.usage is not None
            assert reader.meter.usage.reported_cost == pytest.approx(cost * 1e9, abs=1)
    assert found > 10


def test_pieces_are_billed_where_the_price_knows_them() -> None:
    fees = {"image": 4, "audio_second": 3, "character": 2, "search_unit": 5}
    seen: dict[Format, int] = {}
    for format_, row in recorded():
        reader = decoder(row, format_, Price(fees=fees))
        drain(reader, [reply(row)])
        usage = reader.meter.usage or Usage()
        if usage.fees:
            seen[format_] = seen.get(format_, 0) + 1
        if format_ in DRAWN and not row["streaming"]:
            assert usage.fees == {"image": len(final(row)["data"])}, row["id"]
        if (final(row).get("usage") or {}).get("seconds"):
            assert usage.fees == {"audio_second": final(row)["usage"]["seconds"]}
            assert usage.exact
    assert set(seen) == {*FREE_FORM, *DRAWN, Format.RERANK}


def test_what_reports_nothing_is_marked_as_estimated() -> None:
    for format_, row in recorded():
        reader = decoder(row, format_)
        drain(reader, [reply(row)])
        told = final(row).get("usage") or final(row).get("meta")
        if format_ in (Format.EMBEDDINGS, Format.MODERATIONS) and not told:
            assert reader.meter.usage == Usage({Bucket.INPUT: 7}, exact=False), row["id"]


def test_every_recorded_request_is_read() -> None:
    rows = recorded()
    checked = 0
    for format_, row in rows:
        if "prompt" not in asked(row) and "input" not in asked(row) and format_ is not Format.RERANK:
            continue  # a form, or a shape of the vendor's own
        facts = read(format_, asked(row))
        checked += 1
        assert facts.output_requested is not None
        assert facts.texts or facts.tokens or format_ is Format.MODERATIONS, row["id"]  # which may be of a picture
    assert checked > 200


def test_every_recorded_error_is_a_leaf_with_its_status() -> None:
    rows = recorded(good=False)
    for _, row in rows:
        provider = Provider(row["provider"], "openai")
        error = DIALECT.error(row["response_status"], row["response_headers"] or {}, corpus.body(row), provider)
        assert isinstance(error, GatewayError)
        if row["response_status"] in (401, 404):
            assert isinstance(error, UpstreamDenied), row["id"]
        elif isinstance(error, UpstreamRejected):
            assert error.upstream_status == row["response_status"]
    assert len(rows) > 20


AZURE = {
    "/openai/deployments/": ("azure-deployments", "/openai"),
    "/openai/v1/": ("azure", "/openai/v1"),
    "/openai/responses": ("azure-deployments", "/openai"),
    "/models/": ("azure-foundry", "/models"),
}


def test_azure_is_called_where_it_was_called() -> None:
    presets, checked = known(None, {}).providers, 0
    for kind, format_ in (("chat", Format.CHAT), ("responses", Format.RESPONSES), ("embeddings", Format.EMBEDDINGS)):
        for row in corpus.rows(kind):
            if row["provider"] != "azure":
                continue
            url = urlsplit(row["url"].replace("azure.com//", "azure.com/"))
            name, base = next(found for start, found in AZURE.items() if url.path.startswith(start))
            version = {"query": {"api-version": url.query.partition("=")[2]}} if url.query else {"query": None}
            options = {**presets[name].options, **version}
            provider = Provider("azure", "openai", f"{url.scheme}://{url.netloc}{base}", options=options)
            model = url.path.split("/deployments/")[1].split("/")[0] if "/deployments/" in url.path else "m"
            assert paths.url(provider, format_, model) == url.geturl()
            checked += 1
    assert checked > 250


def test_grok_on_azure_counts_its_cache_beside_the_prompt() -> None:
    preset, checked = known(None, {}).providers["azure-grok"], 0
    provider = Provider("azure", "openai", options=preset.options)
    for row in corpus.rows("chat"):
        if row["provider"] != "azure" or "grok" not in str(row["model"]) or row["response_status"] != 200:
            continue
        blocks = corpus.usage_blocks(row)
        if not blocks:
            continue
        stream = {"stream": row["streaming"], "stream_options": {"include_usage": True}}
        reader = DIALECT.decoder(request(Format.CHAT, stream), step(provider), lambda usage: Cost(None))
        drain(reader, [corpus.body(row)])
        usage = reader.meter.usage
        assert usage is not None
        assert not usage.flags, row["id"]
        block = blocks[-1]
        cached = (block.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        assert usage.tokens.get(Bucket.CACHE_READ, 0) == cached
        assert usage.tokens.get(Bucket.INPUT, 0) + usage.tokens.get(Bucket.IMAGE_IN, 0) == block["prompt_tokens"]
        checked += 1
    assert checked > 20

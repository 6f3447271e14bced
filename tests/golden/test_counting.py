"""Estimates against what real providers reported: recorded chat and messages requests, replayed in a shuffled order.

Each (provider, family) is one deployment.  A request is estimated, then its report is learned; it is "held" once
twenty like it (tools, schema, thinking, pictures) have been reported.  Requests that hold what only the provider can
see (links to files, searches) are bounded by the context and stay out of the figures.  The families' figures were
fitted on these recordings, so errors before calibration are those of the fit; what calibration adds is not.

The recordings stay where they are (`TOLLGATE_DATA`, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import os
import random
import re
import struct
from collections import Counter as Tally, defaultdict
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from gateway.tokens import Counter, family_of
from gateway.types import Deployment, Estimate, Format, Key, Provider, Request

pytestmark = pytest.mark.corpus

CONVERSATIONS = (Format.CHAT, Format.MESSAGES)
"""Whose rules the figures here are about."""
DATA = Path(os.environ.get("TOLLGATE_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
CORPUS = DATA / "wire_dev.jsonl.gz"
KEY = Key("k", "t", "test", b"")
HELD_AFTER = 20
MEDIA = re.compile(r"<BLOB type=\w+ ?(?:(\d+)x(\d+))?.*?bytes=(\d+).*?>")


@dataclass(frozen=True, slots=True)
class Exchange:
    provider: str
    model: str
    format: Format
    raw: bytes
    reported: int


@dataclass(frozen=True, slots=True)
class Guess:
    provider: str
    estimate: Estimate
    reported: int
    tools: bool
    plain: bool  # only text
    held: bool

    @property
    def error(self) -> float:
        return abs(self.estimate.expected - self.reported) / self.reported

    @property
    def bounded(self) -> bool:
        return self.reported <= self.estimate.bound


def header(match):
    """Base64 of a file of the recorded size whose header says the recorded dimensions."""
    width, height, size = match.groups()
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", int(width), int(height)) if width else b""
    return base64.b64encode(head.ljust(int(size), b"\0")).decode()


def with_media(value):
    if isinstance(value, str):
        return MEDIA.sub(header, value) if "<BLOB" in value else value
    if isinstance(value, list):
        return [with_media(item) for item in value]
    return {key: with_media(item) for key, item in value.items()} if isinstance(value, dict) else value


def reported_input(row):
    usage = row.get("usage_merged") or {}
    if row["kind"] == "messages":
        parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return sum(usage.get(part) or 0 for part in parts)
    extra = 0
    if row["provider"] == "azure" and "grok" in (row["model"] or ""):  # there cached tokens are not in prompt_tokens
        extra = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return (usage.get("prompt_tokens") or 0) + extra


def exchanges():
    if not CORPUS.exists():
        pytest.skip(f"no recorded traffic at {CORPUS}")
    found = {}
    with gzip.open(CORPUS) as lines:
        for row in map(orjson.loads, lines):
            if row["kind"] not in CONVERSATIONS or not 200 <= (row["response_status"] or 0) < 300:
                continue
            if not isinstance(row["request_body"], dict) or (reported := reported_input(row)) <= 0:
                continue
            raw = orjson.dumps(with_media(row["request_body"]))
            model = row["model"] or row["request_body"].get("model") or ""
            found[row["provider"], model, raw, reported] = Exchange(
                row["provider"], model, Format(row["kind"]), raw, reported
            )
    return list(found.values())


async def replay(rows, *, learn=True):
    counter = Counter()
    deployments = {}
    seen = Tally()
    guesses = []
    for row in rows:
        dialect = "anthropic" if row.format is Format.MESSAGES else "openai"
        where = Deployment(row.model, Provider(row.provider, dialect), row.model)
        name = f"{row.provider}/{family_of(where).name}"
        where = deployments.setdefault(name, replace(where, id=name))
        counter.serve([where])
        body = orjson.loads(row.raw)
        content = await counter.content(
            Request("r", row.format, row.raw, body, row.model, stream=False, received=0.0, key=KEY)
        )
        facts = content.facts
        media = bool(facts.images or facts.audio or facts.files)
        kind = (name, bool(facts.tools), content.schema > 0, facts.thinking, media)
        if not facts.opaque:
            estimate = counter.estimate(content, where)
            plain = not (facts.tools or content.schema or media)
            tools = bool(facts.tools) and not media
            guesses.append(Guess(row.provider, estimate, row.reported, tools, plain, seen[kind] >= HELD_AFTER))
        if learn:
            counter.learn(where, content, row.reported)
        seen[kind] += 1
    counter.close()
    return guesses


@pytest.fixture(scope="module")
def guesses():
    rows = exchanges()
    random.Random(7).shuffle(rows)
    return asyncio.run(replay(rows))


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def by_provider(guesses):
    groups = defaultdict(list)
    for guess in guesses:
        groups[guess.provider].append(guess)
    return {provider: found for provider, found in sorted(groups.items()) if len(found) >= HELD_AFTER}


def show(title, guesses):
    for provider, found in by_provider(guesses).items():
        errors = [guess.error for guess in found]
        bounded = sum(guess.bounded for guess in found) / len(found)
        wide = quantile([guess.estimate.bound / guess.reported for guess in found], 0.5)
        print(
            f"{title:10} {provider:14} n={len(found):4} median {quantile(errors, 0.5):6.1%} "
            f"p90 {quantile(errors, 0.9):6.1%} bounded {bounded:6.1%} bound/reported {wide:.2f}"
        )


def test_openai_text_is_estimated_within_two_percent(guesses):
    held = [guess for guess in guesses if guess.held and guess.plain]
    show("held text", held)
    openai = [guess.error for guess in by_provider(held)["openai"]]
    assert len(openai) > 300
    assert quantile(openai, 0.5) <= 0.005
    assert quantile(openai, 0.9) <= 0.03


async def test_openai_text_is_exact_by_rule_alone():
    openai = [row for row in exchanges() if row.provider in ("openai", "azure") and "gpt-" in row.model]
    plain = [guess for guess in await replay(openai, learn=False) if guess.plain]
    exact = sum(guess.estimate.expected == guess.reported for guess in plain) / len(plain)
    assert len(plain) > 500
    assert exact > 0.9


async def test_the_families_lean_neither_way_before_any_report():
    found = by_provider([guess for guess in await replay(exchanges(), learn=False) if guess.reported >= 150])
    for provider in ("anthropic", "openai", "openrouter", "mistral", "groq", "deepseek", "zai"):
        lean = [g.estimate.expected / g.reported - 1 for g in found[provider] if g.plain or g.tools]
        assert abs(quantile(lean, 0.5)) <= 0.02, provider
    text = [guess.estimate.expected / guess.reported - 1 for guess in found["anthropic"] if guess.plain]
    assert abs(quantile(text, 0.5)) <= 0.02


def test_tools_are_estimated_within_six_percent_on_each_provider(guesses):
    # Vercel's Gemini counts the tools whole or by a third, by who serves the call: in four of five orders of these
    # recordings its median is below 5 %, in one 11 %.  (Venice, with 18 rows, is too few: it adds 900 to 5,000 tokens
    # of search results to requests that do not ask for them.)
    medians = {}
    for provider, found in by_provider([guess for guess in guesses if guess.tools]).items():
        held = found[HELD_AFTER:]  # whatever the models
        show("tools", held)
        if len(held) >= HELD_AFTER:
            medians[provider] = quantile([guess.error for guess in held], 0.5)
    assert len(medians) >= 12
    assert {name: median for name, median in medians.items() if median > 0.06} == {}


def test_ninety_nine_of_a_hundred_held_requests_are_bounded(guesses):
    held = [guess for guess in guesses if guess.held]
    assert len(held) > 2_000
    assert sum(guess.bounded for guess in held) / len(held) >= 0.99
    for provider, found in by_provider(held).items():
        assert sum(guess.bounded for guess in found) / len(found) >= 0.96, provider


def test_bounds_are_tight_enough_to_reserve_by(guesses):
    large = [guess for guess in guesses if guess.held and guess.reported >= 500]
    assert quantile([guess.estimate.bound / guess.reported for guess in large], 0.5) <= 1.25
    small = [guess for guess in guesses if guess.held and guess.reported < 500]
    assert quantile([guess.estimate.bound - guess.reported for guess in small], 0.5) <= 60  # tokens


def test_the_first_requests_of_a_deployment_are_bounded_by_the_familys_margin(guesses):
    first = [guess for guess in guesses if not guess.held]
    show("before", first)
    assert sum(guess.bounded for guess in first) / len(first) >= 0.97

"""Every recorded reply with a good status: its usage is in disjoint buckets that add up as its surface says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import corpus
import pytest
import surfaces
from corpus import Row

from gateway.errors import GatewayError
from gateway.types import Usage

pytestmark = pytest.mark.corpus

Sums = tuple[int, int, int | None]
"""Tokens in, tokens out, and the total that the reply states."""


def _of(block: Mapping[str, Any], *names: str) -> int:
    """The first of the counts that is there."""
    for name in names:
        at: Any = block
        for part in name.split("."):
            at = at.get(part) if isinstance(at, Mapping) else None
        if at is not None:
            return int(at)
    return 0


def chat(row: Row, block: Mapping[str, Any]) -> Sums:
    """Cache and reasoning are within; xAI and Vercel have reasoning beside, Mistral sound, Azure's Grok the cache."""
    into, out = _of(block, "prompt_tokens"), _of(block, "completion_tokens")
    thought = _of(block, "completion_tokens_details.reasoning_tokens", "reasoning_tokens")
    total = block.get("total_tokens")
    if row["provider"] in ("xai", "vercel-gateway", "perplexity"):
        out += thought
    if row["provider"] in ("vercel-gateway", "perplexity") and total is not None:
        total += thought  # which it hides
    if row["provider"] == "mistral":
        into += _of(block, "prompt_tokens_details.audio_tokens")
    if row["provider"] == "azure" and "grok" in str(row["model"]):
        into += _of(block, "prompt_tokens_details.cached_tokens")
        total = None
    return into, out, total


def responses(_row: Row, block: Mapping[str, Any]) -> Sums:
    return _of(block, "input_tokens"), _of(block, "output_tokens"), block.get("total_tokens")


def messages(_row: Row, block: Mapping[str, Any]) -> Sums:
    """The cache is beside the input; a compaction is in neither total."""
    extra = [one for one in block.get("iterations") or () if one["type"] == "compaction"]
    counts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    into = sum(_of(one, name) for one in [block, *extra] for name in counts)
    return into, sum(_of(one, "output_tokens") for one in [block, *extra]), None


def gemini(_row: Row, block: Mapping[str, Any]) -> Sums:
    into = _of(block, "promptTokenCount") + _of(block, "toolUsePromptTokenCount")
    return into, _of(block, "candidatesTokenCount") + _of(block, "thoughtsTokenCount"), block["totalTokenCount"]


def converse(_row: Row, block: Mapping[str, Any]) -> Sums:
    cached = _of(block, "cacheReadInputTokens") + _of(block, "cacheWriteInputTokens")
    return _of(block, "inputTokens") + cached, _of(block, "outputTokens"), block["totalTokens"]


def cohere(_row: Row, block: Mapping[str, Any]) -> Sums:
    return _of(block, "billed_units.input_tokens"), _of(block, "billed_units.output_tokens"), None


def ollama(_row: Row, block: Mapping[str, Any]) -> Sums:
    return _of(block, "prompt_eval_count"), _of(block, "eval_count"), None


def endpoints(row: Row, block: Mapping[str, Any]) -> Sums:
    """What is not text may be beside it: Cohere's pictures, Mistral's sound."""
    into = _of(block, "input_tokens", "prompt_tokens", "total_tokens", "billed_units.input_tokens")
    into += _of(block, "billed_units.image_tokens")
    if row["provider"] == "mistral":
        into += _of(block, "prompt_tokens_details.audio_tokens")
    return into, _of(block, "output_tokens", "completion_tokens"), block.get("total_tokens")


RULES: dict[str, Callable[[Row, Mapping[str, Any]], Sums]] = {
    "chat": chat,
    "completions": chat,
    "responses": responses,
    "messages": messages,
    "gemini": gemini,
    "converse": converse,
    "cohere": cohere,
    "ollama": ollama,
}


def stated(row: Row, name: str) -> Mapping[str, Any] | None:
    """The usage that the reply states, read by a way of our own; None where it states none."""
    found: dict[str, Any] = {}
    for one in surfaces.blocks(row):
        block = _stated(one, name)
        if block:
            told = {key: value for key, value in block.items() if value is not None}
            found = {**found, **told} if name == "messages" else told
    return found or None


def _stated(one: Mapping[str, Any], name: str) -> Any:
    match name:
        case "gemini":
            block = one.get("usageMetadata") or {}
            return block if "promptTokenCount" in block else None
        case "ollama":
            return one if "eval_count" in one else None
        case "messages":
            return (one.get("message") or {}).get("usage") or one.get("usage")
        case "responses":
            return (one.get("response") or {}).get("usage") or one.get("usage")
        case "cohere":
            return (one.get("delta") or {}).get("usage") or one.get("usage")
        case "chat" if not one.get("usage"):
            return (one.get("x_groq") or {}).get("usage") or _measured(one)
    return one.get("usage") or one.get("meta")


def _measured(one: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Amazon's own count."""
    found = one.get("amazon-bedrock-invocationMetrics")
    return found and {"prompt_tokens": found["inputTokenCount"], "completion_tokens": found["outputTokenCount"]}


SERVED = {
    "chat": (5188, 67),
    "messages": (1763, 0),
    "responses": (1651, 0),
    "gemini": (1191, 0),
    "converse": (191, 0),
    "embeddings": (172, 0),
    "cohere": (95, 0),
    "ollama": (54, 0),
    "completions": (34, 10),
    "images": (8, 10),
    "image_edits": (6, 2),
    "image_variations": (0, 1),
    "transcriptions": (16, 3),
    "moderations": (0, 15),
    "speech": (0, 12),
    "rerank": (10, 0),
    "translations": (0, 1),
}
"""By surface: replies that state their usage, and replies that do not, as streams that were not asked for it."""

NOT_SERVED = {
    "Cohere's API before this one": 3,
    "Google's Interactions": 19,
    "Google's explicit caches": 40,
    "Mistral's reader of documents": 2,
    "anthropic's own path for completions": 8,
    "cohere's own path for embeddings": 18,
    "counts of tokens, which are free": 26,
    "files of finished batches: they hold replies, each with a usage of its own": 2,
    "google's own path for embeddings": 20,
    "google's own path for images": 1,
    "invoked models whose own format is not spoken; Converse is": 42,
    "lists of models": 26,
    "older generate calls of Cohere, Ollama and others": 13,
    "ollama's own path for embeddings": 5,
    "reports of what was used": 3,
    "the state of a batch": 43,
    "vertex's own path for images": 5,
    "what a stored response was asked, or that it is gone": 2,
}
"""Calls that are made for no request of a client's."""

BROKEN = {
    "dd11d7b769199ea5": "llama.cpp behind gpustack failed in the middle",
    "9ba26ac4ec43ec77": "Groq: a tool call of the wrong shape, told in an event",
    "8f51eae4c49a9ad1": "the same",
    "e5d747303c3031b6": "OpenRouter: malformed function call, told in an event, and usage in the one after it",
    "9d60dab013bfbc10": "the same, within a whole reply",
    "4a6612dd4cb5d4e0": "OpenRouter: the choice ends with an error, and has usage",
    "01169fe9ccf40ecf": "OpenRouter: Venice stopped after comments",
    "8f5721286612b72d": "OpenRouter: an error with status 200",
    "fbf00c9834a0e841": "the same",
    "49902a7807e6c8bd": "the recording ends after 3,000 bytes",
    "65379735b723b632": "the same",
    "9d318904a1d69065": "the same",
    "2bdb756d0b888ab5": "the same",
    "16bc8680b80a8613": "the same",
    "fe8625fe1b5d1d41": "the recording has no body",
}
"""Replies that are errors."""

NOT_READ = {"e5d747303c3031b6": "its usage comes after its error, when nobody reads on: the gateway counts by itself"}

THOUGHT_TOO_MUCH = "its own estimate of the reasoning is more than the whole output: clamped to it"
CONTRADICTORY = {
    "b76343503668de6a": "a compaction of 99,195 tokens is in no total: added",
    **dict.fromkeys(
        (
            "dc753a9ed53e5413",
            "fdb4b61840a3dbeb",
            "bf8cafd58934fa8a",
            "e301a637f96e52a7",
            "e8af3f3f6b57ba3e",
            "ca08b7aa089a2f09",
            "96f8018af9286cef",
            "fe354cb2059a5461",
            "92bc237a3171e753",
            "15532ae425bbd735",
            "8051b0a9adfb3a70",
            "33a8153da0e467ce",
            "07e6a3f1b4b87e3e",
            "d95fe362204969e1",
            "3ff77ddfc51d8f3c",
            "800114e7b22ef76c",
            "95560523e6999f04",
            "f5029443d4d90982",
            "a439dae472e6ca57",
            "c3fd87452ea76f4f",
            "738ffec45e91e863",
            "157c5091134acccb",
            "58823e2f7d016116",
            "fa65fc01ad63aaba",
            "58703218b1c6b576",
            "7bcb284d09589a44",
            "7ca52cc1e4c00e0a",
            "bb9665b2af0abf8e",
            "b047bfd9ca0bed57",
            "d73539996e1694b1",
            "899670fff464c8ad",
            "46a179d04e2f1be8",
            "d114f8d1aadb420d",
            "b6c6d64e71381fd9",
        ),
        THOUGHT_TOO_MUCH,
    ),
}
"""Replies whose figures contradict each other, which is flagged; the last of them are Doubleword's and OpenRouter's."""


@dataclass(frozen=True)
class Read:
    """One reply as the gateway reads it."""

    row: Row
    name: str  # of the surface, or why there is none
    usage: Usage | None
    error: str
    stated: Mapping[str, Any] | None


@pytest.fixture(scope="module")
def replies() -> list[Read]:
    """All of them."""
    return [_read(row) for row in corpus.every_line() if 200 <= row["response_status"] < 300]


def _read(row: Row) -> Read:
    at = surfaces.surface(row)
    if isinstance(at, str):
        return Read(_light(row), at, None, "", None)
    decoder, error = surfaces.decoder(row, at), ""
    try:
        corpus.drain(decoder, [corpus.body(row)])
    except GatewayError as failure:
        error = failure.message
    return Read(_light(row), at.name, decoder.meter.usage, error, stated(row, at.name))


def _light(row: Row) -> Row:
    return {name: row[name] for name in ("id", "kind", "provider", "model")}


def test_no_surface_and_no_line_is_left_out(replies: list[Read]) -> None:
    lines = Counter(reply.name for reply in replies)
    assert sum(lines.values()) == 10_778
    assert {name: count for name, count in lines.items() if name in SERVED} == {
        name: stated + silent for name, (stated, silent) in SERVED.items()
    }
    assert {name: count for name, count in lines.items() if name not in SERVED} == NOT_SERVED


def test_the_buckets_of_every_reply_are_disjoint_and_add_up_as_its_surface_says(replies: list[Read]) -> None:
    checked: Counter[str] = Counter()
    for reply in replies:
        if reply.stated is None:
            continue
        row, usage = reply.row, reply.usage
        checked[reply.name] += 1
        if row["id"] in NOT_READ:
            assert usage is None
            continue
        assert usage is not None, row["id"]
        into, out, total = RULES.get(reply.name, endpoints)(row, reply.stated)
        assert (usage.input_tokens, usage.output_tokens) == (into, out), row["id"]
        assert total in (None, into + out), row["id"]
        assert usage.exact, row["id"]
        assert all(count > 0 for count in usage.tokens.values()), row["id"]
        assert not usage.flags or row["id"] in CONTRADICTORY, (row["id"], usage.flags)
    assert checked == {name: stated for name, (stated, _) in SERVED.items() if stated}


def test_the_exceptions_are_those_that_are_listed(replies: list[Read]) -> None:
    assert {reply.row["id"] for reply in replies if reply.usage and reply.usage.flags} == CONTRADICTORY.keys()
    assert {reply.row["id"] for reply in replies if reply.error} == BROKEN.keys()


def test_a_reply_that_states_no_usage_is_never_one_of_nothing(replies: list[Read]) -> None:
    silent: Counter[str] = Counter()
    for reply in replies:
        if reply.name not in SERVED or reply.stated is not None:
            continue
        silent[reply.name] += 1
        if reply.name in ("chat", "completions"):
            assert reply.usage is None, reply.row["id"]  # and is counted by the gateway itself
        else:
            assert reply.usage is not None, reply.row["id"]
            assert not reply.usage.exact or reply.usage.fees, reply.row["id"]
    assert silent == {name: count for name, (_, count) in SERVED.items() if count}

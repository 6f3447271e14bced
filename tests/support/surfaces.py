"""Which of the gateway's surfaces each recorded exchange is of, and how that surface's usage adds up.

The rules are read here once more, by a way of our own, so that a test of the gateway's reading is no tautology.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import corpus
from corpus import Row

from gateway import plugins, settings
from gateway.dialects.base import Decoder, Dialect
from gateway.plan import Step
from gateway.types import Cost, Deployment, Estimate, Format

CLAUDE = ("anthropic.claude-3", "anthropic.claude-opus", "anthropic.claude-sonnet", "anthropic.claude-haiku")
"""Of the models that Amazon invokes in their maker's own format, with OpenAI's, those whose format is spoken here."""

PRESETS = {
    "vercel-gateway": "vercel",
    "bedrock-mantle": "openai",
    "chatgpt": "openai",
    "copilot": "openai",
}
NO_PRESET = "a provider of the operator's own"
NO_PRESETS = {
    "avian",
    "cloudflare",
    "databricks",
    "doubleword",
    "gpustack",
    "local",
    "mistralrs",
    "pydantic-gateway",
    "venice",
}
"""Whom no preset knows: an entry with a URL and a key."""

RESPONSES_TOO = {"responses": "/responses"}

PATHS = {
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
"""What OpenAI's image has beside conversation, by the end of the path."""

NEVER_CALLED = {
    "batch_output": "files of finished batches: they hold replies, each with a usage of its own",
    "batches": "the state of a batch",
    "cached_contents": "Google's explicit caches",
    "count_tokens": "counts of tokens, which are free",
    "interactions": "Google's Interactions",
    "models": "lists of models",
    "native_generate": "older generate calls of Cohere, Ollama and others",
    "ocr": "Mistral's reader of documents",
}
"""Kinds of calls the gateway makes for nobody's prompt, or not at all."""


@dataclass(frozen=True, slots=True)
class Surface:
    """One wire format of one vendor."""

    name: str  # chat, messages ...: whose rule holds
    client: Format
    preset: str


def surface(row: Row) -> Surface | str:
    """Where the gateway meets such an exchange; or why it never does."""
    kind = row["kind"]
    if (never := NEVER_CALLED.get(kind)) is not None:
        return never
    return _BY_KIND.get(kind, _endpoint)(row)


def _preset(row: Row) -> str:
    who = str(row["provider"])
    return NO_PRESET if who in NO_PRESETS else PRESETS.get(who, who)


def _chat(row: Row) -> Surface:
    """Grok on Azure has an entry of its own; Anthropic's chat in OpenAI's image has none."""
    preset = _preset(row)
    if preset == "azure" and "grok" in str(row["model"]):
        preset = "azure-grok"
    return Surface("chat", Format.CHAT, NO_PRESET if preset == "anthropic" else preset)


def _responses(row: Row) -> Surface | str:
    if "/input_items" in row["url"] or row["method"] == "DELETE":
        return "what a stored response was asked, or that it is gone"
    return Surface("responses", Format.RESPONSES, NO_PRESET if row["provider"] == "llamacpp" else _preset(row))


def _invoked(row: Row) -> Surface | str:
    if "openai." in row["model"]:
        return Surface("chat", Format.CHAT, "bedrock-invoke")
    if any(name in row["model"] for name in CLAUDE):
        return Surface("messages", Format.MESSAGES, "bedrock-invoke")
    return "invoked models whose own format is not spoken; Converse is"


def _google(row: Row) -> Surface | str:
    if ":batch" in row["url"]:
        return NEVER_CALLED["batches"]
    return Surface("gemini", Format.CHAT, "vertex" if row["provider"] == "vertex" else "gemini")


def _native_chat(row: Row) -> Surface | str:
    if urlsplit(row["url"]).path.endswith("/v1/chat"):
        return "Cohere's API before this one"
    who = str(row["provider"])
    return Surface(who, Format.CHAT, "ollama-native" if who == "ollama" else who)


def _endpoint(row: Row) -> Surface | str:
    path = urlsplit(row["url"]).path
    if row["method"] != "POST" or "/usage/" in path:
        return "reports of what was used"
    found = PATHS.get(path.rsplit("/", 1)[-1])
    if found is None:
        return f"{row['provider']}'s own path for {row['kind']}"
    return Surface(found.value, found, NO_PRESET if row["provider"] == "cohere" else _preset(row))


_BY_KIND: dict[str, Callable[[Row], Surface | str]] = {
    "chat": _chat,
    "responses": _responses,
    "responses_get": _responses,
    "messages": lambda row: Surface("messages", Format.MESSAGES, "anthropic"),
    "raw_predict": lambda row: Surface("messages", Format.MESSAGES, "vertex-anthropic"),
    "converse": lambda row: Surface("converse", Format.CHAT, "bedrock"),
    "invoke": _invoked,
    "generate_content": _google,
    "native_chat": _native_chat,
}


@cache
def deployment(preset: str, model: str, at: float | None = None) -> Deployment:
    """As a configuration with the preset makes it, at the prices of the moment `at`."""
    provider: dict[str, Any] = {"preset": preset}
    if preset == NO_PRESET:
        provider = {"dialect": "openai", "base_url": "https://p.example/v1", "options": {"paths": RESPONSES_TOO}}
    elif preset.startswith("azure"):
        provider |= {"base_url": "https://p.example/v1"}
    config = {
        "providers": {"p": provider | {"api_key": "k"}},
        "deployments": [{"id": "d", "provider": "p", "upstream_model": model}],
    }
    return settings.parse(json.dumps(config), {}, now=at).deployments["d"]


def step(row: Row, at: Surface, **more: Any) -> Step:
    """The step that the exchange was."""
    model = str(row["model"] or "unsaid")[:100]
    return Step(deployment(at.preset, model), Estimate(7, 9), 500, 50, 0.0, **more)


def dialect(at: Surface) -> Dialect:
    """The one that the preset names."""
    return plugins.dialect(deployment(at.preset, "m").provider.dialect)


def decoder(row: Row, at: Surface) -> Decoder:
    """The reader of the exchange's reply, for a client of the surface who asks for usage."""
    asked = row["request_body"] if isinstance(row["request_body"], dict) else {}
    body = {**asked, "stream": streams(row), "stream_options": {"include_usage": True}}
    return dialect(at).decoder(corpus.request(at.client, body), step(row, at), lambda usage: Cost(1_500))


def streams(row: Row) -> bool:
    """Whether the reply is one."""
    return row["response_format"] in ("sse", "ndjson", "aws-eventstream") or "response_raw_b64" in row


def blocks(row: Row) -> Iterator[Mapping[str, Any]]:
    """Every JSON object of the reply, in order."""
    for event in row.get("response_events", ()):
        found = _object(event)
        if found is not None:
            yield found
    body = row.get("response_body")
    yield from (one for one in (body if isinstance(body, list) else [body]) if isinstance(one, dict))


def _object(event: Any) -> dict[str, Any] | None:
    """What an event holds: a frame of Amazon's as its recorder read it, or the JSON in a line."""
    if isinstance(event, dict):
        found = event.get("decoded") or event.get("payload")
    else:
        try:
            found = json.loads(event[event.index("{") :])
        except ValueError:
            return None
    return found if isinstance(found, dict) else None

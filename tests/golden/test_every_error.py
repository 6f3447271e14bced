"""Every recorded error: the leaf of the tree that it is, by provider and status, and when it says to come back.

A leaf is the status, code and retry advice that the client gets; `tests/system/test_replayed.py` has that on the wire.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TypeAlias

import corpus
import pytest
import surfaces
from corpus import Row
from surfaces import Surface

from gateway import plugins
from gateway.dialects.refusal import refusal
from gateway.errors import (
    ContentRefused,
    ContextOverflow,
    GatewayError,
    UpstreamDenied,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRejected,
)
from gateway.types import Provider

pytestmark = pytest.mark.corpus

Table: TypeAlias = dict[type[GatewayError], dict[int, dict[str, int]]]

TABLE: Table = {
    ContentRefused: {403: {"openrouter": 3}},
    ContextOverflow: {
        400: {
            "anthropic": 1,
            "bedrock": 1,
            "cohere": 1,
            "deepseek": 1,
            "llamacpp": 2,
            "ollama": 1,
            "openai": 1,
            "openrouter": 1,
            "perplexity": 1,
            "vertex": 1,
        },
        500: {"llamacpp": 1},  # an embedding's input
    },
    # the gateway's key is refused, or the model is not there, or not with what was asked of it
    UpstreamDenied: {
        400: {
            "bedrock": 1,  # a model that is called by a profile only
            "deepseek": 1,
            "google": 19,  # an invalid key
            "groq": 27,  # decommissioned models
            "mistral": 3,
            "openai": 23,
            "openrouter": 2,
            "xai": 3,  # an invalid key among them
        },
        401: {
            "anthropic": 14,
            "azure": 1,
            "chatgpt": 1,
            "cohere": 1,
            "deepseek": 3,
            "groq": 8,
            "llamacpp": 1,
            "mistral": 3,
            "ollama": 1,
            "openai": 32,
            "openrouter": 1,
            "perplexity": 1,
            "together": 1,
        },
        403: {"bedrock": 9, "doubleword": 2, "google": 2, "openai": 12},
        404: {
            "anthropic": 34,
            "bedrock": 1,
            "cohere": 2,
            "doubleword": 4,
            "google": 43,
            "groq": 1,
            "huggingface": 3,
            "openai": 15,
            "openrouter": 170,  # nobody there has the model with tools
            "venice": 3,
            "xai": 7,
        },
        500: {"llamacpp": 2},  # started without templates, or without eyes
        501: {"llamacpp": 3},
    },
    UpstreamFailed: {500: {"llamacpp": 2}},
    UpstreamOverloaded: {503: {"bedrock": 2}},
    UpstreamRateLimited: {429: {"azure": 1, "google": 1, "openrouter": 93}},
    UpstreamRejected: {
        400: {
            "anthropic": 31,
            "bedrock": 1,
            "deepseek": 9,
            "doubleword": 3,
            "google": 15,
            "groq": 4,
            "llamacpp": 5,
            "mistral": 5,
            "openai": 36,
            "openrouter": 27,
            "xai": 1,
        },
        422: {"azure": 2},
    },
}


def refused() -> Iterator[tuple[Row, GatewayError]]:
    """Each with what its surface's dialect makes of it."""
    for row in corpus.every_line():
        if row["response_status"] < 400:
            continue
        at = surfaces.surface(row)
        provider = surfaces.deployment(at.preset if isinstance(at, Surface) else surfaces.NO_PRESET, "m").provider
        headers = row["response_headers"] or {}
        dialect = plugins.dialect(provider.dialect)
        yield row, dialect.error(row["response_status"], headers, corpus.body(row), provider)


def test_every_error_is_the_leaf_that_its_provider_means() -> None:
    found: dict[type[GatewayError], dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for row, error in refused():
        found[type(error)][row["response_status"]][row["provider"]] += 1
        assert error.message, row["id"]
        assert not error.retryable or row["response_status"] in (429, 500, 503), row["id"]
        assert error.status != 401, "the gateway's keys are not the client's affair"
    assert found == TABLE
    assert sum(sum(counts.values()) for by_status in found.values() for counts in by_status.values()) == 713


def test_who_says_when_to_come_back_is_heard() -> None:
    waits: Counter[tuple[str, int]] = Counter()
    for row, error in refused():
        if error.retry_after_s is not None:
            waits[row["provider"], row["response_status"]] += 1
    assert waits == {("openrouter", 429): 78, ("azure", 429): 1, ("google", 429): 1}


def test_a_moment_in_milliseconds_is_a_wait_until_then() -> None:
    checked = 0
    for row in corpus.refused("chat"):
        body = corpus.body(row)
        told = re.search(rb'"X-RateLimit-Reset": "(\d{13})"', body)
        if told is None:
            continue
        before = int(told[1]) / 1000 - 30
        error = refusal(row["response_status"], row["response_headers"] or {}, body, Provider("p", "openai"), before)
        assert error.retry_after_s == pytest.approx(30), row["id"]
        checked += 1
    assert checked > 50

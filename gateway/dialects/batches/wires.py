"""Which providers take batches, and in whose way.

options:
  batches: openai     # openai | anthropic | gemini | false; what is not stated is the dialect's own
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.dialects import paths, vertex
from gateway.dialects.base import Call
from gateway.dialects.batches.anthropic import AnthropicBatches
from gateway.dialects.batches.base import BatchWire
from gateway.dialects.batches.gemini import GeminiBatches
from gateway.dialects.batches.openai import OpenAIBatches
from gateway.types import Format, Provider

WIRES: Mapping[str, BatchWire] = {
    "openai": OpenAIBatches(),
    "anthropic": AnthropicBatches(),
    "gemini": GeminiBatches(),
}
USUAL: Mapping[str, str] = {"simulated": "openai", "anthropic": "anthropic", "gemini": "gemini"}
"""By dialect.  Few in OpenAI's image have batches, so who does says so."""

ENDPOINTS: Mapping[str, Format] = {
    **{
        f"/v1{paths.PATHS[each]}": each
        for each in (Format.CHAT, Format.RESPONSES, Format.COMPLETIONS, Format.EMBEDDINGS, Format.MODERATIONS)
    },
    "/v1/messages": Format.MESSAGES,
}
"""What a client's batch may be for."""


def wire_of(provider: Provider) -> BatchWire | None:
    """The way of the provider; None: it takes no batches."""
    if vertex.is_vertex(provider):
        return None
    return WIRES.get(str(provider.options.get("batches", USUAL.get(provider.dialect, ""))))


def path_of(call: Call) -> str:
    """Where a line goes, as a provider in OpenAI's image names its endpoints."""
    gone = urlsplit(call.url).path
    return next((f"/v1{known}" for known in paths.PATHS.values() if gone.endswith(known)), gone)

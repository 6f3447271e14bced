"""Where a provider in OpenAI's image takes what: its paths, as data.

    options:
      paths:                            # after base_url; null: it does not take this
        responses: /responses
        embeddings: /deployments/{model}/embeddings
      query: {api-version: "2024-10-21"}

What is not stated is as OpenAI has it, but for `responses`: few others speak it, so who does says so.  `{model}` is the
upstream model.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from gateway.errors import UnsupportedField
from gateway.types import Format, Provider

PATHS: Mapping[Format, str] = {
    Format.CHAT: "/chat/completions",
    Format.RESPONSES: "/responses",
    Format.COMPLETIONS: "/completions",
    Format.EMBEDDINGS: "/embeddings",
    Format.RERANK: "/rerank",
    Format.MODERATIONS: "/moderations",
    Format.IMAGES: "/images/generations",
    Format.IMAGE_EDITS: "/images/edits",
    Format.IMAGE_VARIATIONS: "/images/variations",
    Format.TRANSCRIPTIONS: "/audio/transcriptions",
    Format.TRANSLATIONS: "/audio/translations",
    Format.SPEECH: "/audio/speech",
}
_NONE: Mapping[str, str | None] = {}
_CHAT, _RESPONSES = Format.CHAT, Format.RESPONSES  # an attribute of an enumeration costs more than the rest here


def path(provider: Provider, format_: Format) -> str | None:
    """The path for requests of this format; None where the provider does not take them."""
    own: Mapping[str, str | None] = provider.options.get("paths", _NONE)
    if format_ in own:
        return own[format_]
    if format_ is _CHAT and "path" in provider.options:
        return str(provider.options["path"])
    return PATHS.get(format_)


def speaks_responses(provider: Provider) -> bool:
    """Whether the provider says that it does."""
    own: Mapping[str, str | None] = provider.options.get("paths", _NONE)
    return own.get(_RESPONSES) is not None


def url(provider: Provider, format_: Format, model: str, below: str = "") -> str:
    """Where such a request goes; `below` is what follows the path.  Raises UnsupportedField if it goes nowhere."""
    found = path(provider, format_)
    if found is None:
        raise UnsupportedField(f"Provider {provider.id} does not take requests for {format_}.", param="model")
    address = provider.base_url.rstrip("/") + found
    if "{model}" in address:
        address = address.replace("{model}", quote(model, safe=""))
    query = provider.options.get("query")
    return f"{address}{below}?{urlencode(query)}" if query else address + below

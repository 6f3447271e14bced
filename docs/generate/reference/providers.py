"""The vendors that are known by name, from the presets that ship with the package."""

from __future__ import annotations

from gateway.configuration.presets import known
from reference.table import code, table

INTRODUCTION = """
`provider: {preset: NAME, api_key: ...}` takes the dialect, the address and the quirks from here; what the provider
states itself wins. Anything else that speaks OpenAI's format needs no code: see
[I want to add a provider](../guides/add-a-provider.md).
"""


def page() -> str:
    """A row for each preset."""
    rows = [
        (
            code(name),
            code(preset.dialect),
            code(preset.base_url),
            preset.prices and code(preset.prices),
            f"{preset.source} ({preset.date})",
        )
        for name, preset in known(None, {}).providers.items()
    ]
    head = ("preset", "dialect", "address", "price list", "how it is known")
    marks = "[M] measured on recorded traffic, [D] the vendor's documentation, [K] to be checked again."
    return f"{INTRODUCTION}\n{marks}\n\n{table(head, rows)}"

"""The credentials in use, by provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.credentials.base import Credentials
from gateway.dialects.base import Call
from gateway.types import Provider


class Keyring:
    """Holds the credentials of each provider for as long as its settings do not change."""

    def __init__(self, make: Callable[[Provider], Credentials]) -> None:
        self._make = make
        self._held: dict[str, tuple[Provider, Credentials]] = {}

    async def proven(self, call: Call, provider: Provider) -> Call:
        """The call with what its provider's credentials add; the same call where the provider has none."""
        if "credentials" not in provider.options:
            return call
        added = await self._of(provider).headers(provider, call)
        return replace(call, headers={**call.headers, **added})

    def _of(self, provider: Provider) -> Credentials:
        held = self._held.get(provider.id)
        if held is not None and (held[0] is provider or held[0].options == provider.options):
            return held[1]
        made = self._make(provider)
        self._held[provider.id] = (provider, made)
        return made

"""What proves calls to be ours, by provider: credentials of a kind, or one of several keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from msgspec import structs

from gateway.credentials.base import Credentials
from gateway.credentials.keys import DENIED_S, LIMITED_S, Slot, Slots
from gateway.credentials.secret import Secret
from gateway.dialects.base import Call
from gateway.errors import GatewayError, UpstreamDenied, UpstreamRateLimited
from gateway.provider import KEY_HERE
from gateway.types import Provider

Told = Callable[[str, str, str], None]
"""Who hears what became of a call: provider, name of the key, and ok, denied, limited or failed."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The key of one call."""

    slot: Slot
    value: str = field(repr=False)

    @property
    def name(self) -> str:
        """For metrics and logs."""
        return self.slot.key.name

    def on(self, call: Call) -> Call:
        """The call with the key where it belongs."""
        headers = {name: value.replace(KEY_HERE, self.value) for name, value in call.headers.items()}
        return structs.replace(call, headers=headers)

    def of(self, provider: Provider) -> Provider:
        """The provider as it would be with this key alone: what it says of the key is masked."""
        return replace(provider, api_key=self.value)


class Bunch:
    """The keys of one provider.  `now`: seconds, monotonic."""

    def __init__(self, provider: Provider, now: Callable[[], float], told: Told) -> None:
        self.provider = provider
        self._now, self._told = now, told
        self._slots = Slots(provider.keys)
        self._secrets: Mapping[str, Secret] = {key.name: Secret(provider.id, key, now) for key in provider.keys}

    def wait_s(self) -> float:
        """Until a call may be made; 0 if it may."""
        return self._slots.wait_s(self._now())

    async def next(self, tokens: int) -> Chosen | None:
        """A key that can be used; None: all rest."""
        while (slot := self._slots.take(self._now(), tokens)) is not None:
            try:
                return Chosen(slot, await self._secrets[slot.key.name].value())
            except UpstreamDenied:
                slot.rest(self._now(), DENIED_S, limited=False)
                self._told(self.provider.id, slot.key.name, "unreadable")
        return None

    def exhausted(self, failure: GatewayError | None) -> GatewayError:
        """The error of a call for which there is no key, after `failure` if it was made."""
        if failure is None or (self._slots.limited() and not isinstance(failure, UpstreamRateLimited)):
            kind = UpstreamRateLimited if self._slots.limited() else UpstreamDenied
            failure = kind(f"No key of provider {self.provider.id} can be used.")
        failure.retry_after_s = self.wait_s()
        return failure

    def served(self, chosen: Chosen) -> None:
        """The provider took the call."""
        self._told(self.provider.id, chosen.name, "ok")

    async def refused(self, chosen: Chosen, error: GatewayError) -> bool:
        """The provider did not: whether it was for the key, so that the call can be made with another.

        A key that was denied rests, unless it has another value by now; one that met its limits as long as was said.
        """
        limited = isinstance(error, UpstreamRateLimited)
        denied = isinstance(error, UpstreamDenied) and error.of_key
        self._told(self.provider.id, chosen.name, "limited" if limited else "denied" if denied else "failed")
        if limited:
            seconds = error.retry_after_s
            chosen.slot.rest(self._now(), LIMITED_S if seconds is None else seconds, limited=True)
        elif denied and not await self._secrets[chosen.name].changed():
            chosen.slot.rest(self._now(), DENIED_S, limited=False)
        return limited or denied

    def close(self) -> None:
        """Nothing is read any more."""
        for secret in self._secrets.values():
            secret.close()


class Keyring:
    """Holds the credentials and keys of each provider for as long as its settings do not change."""

    def __init__(
        self,
        make: Callable[[Provider], Credentials],
        now: Callable[[], float],
        told: Told = lambda _provider, _key, _outcome: None,
    ) -> None:
        self._make, self._now, self._told = make, now, told
        self._held: dict[str, tuple[Provider, Credentials]] = {}
        self._bunches: dict[str, Bunch] = {}

    async def proven(self, call: Call, provider: Provider) -> Call:
        """The call with what its provider's credentials add; the same call where the provider has none."""
        if "credentials" not in provider.options:
            return call
        added = await self._of(provider).headers(provider, call)
        return structs.replace(call, headers={**call.headers, **added})

    def bunch(self, provider: Provider) -> Bunch:
        """The keys of a provider that has several."""
        found = self._bunches.get(provider.id)
        if found is None or found.provider.keys != provider.keys:
            found = self._bunches[provider.id] = Bunch(provider, self._now, self._told)
        return found

    def wait_s(self, provider: Provider) -> float:
        """Until a key of the provider may be used; 0 if one may, or if there is nothing to choose."""
        return self.bunch(provider).wait_s() if provider.keys else 0.0

    def close(self) -> None:
        """Nothing is read any more."""
        for bunch in self._bunches.values():
            bunch.close()

    def _of(self, provider: Provider) -> Credentials:
        held = self._held.get(provider.id)
        if held is not None and (held[0] is provider or held[0].options == provider.options):
            return held[1]
        made = self._make(provider)
        self._held[provider.id] = (provider, made)
        return made

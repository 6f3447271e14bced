"""Calls to providers.  Retries live here; the bytes are `gateway.transport`'s.

A retry happens only before the first byte of a reply, only for failures that say so, at most `provider.retries_max`
times, with full jitter or the provider's own retry-after, inside the request's deadline and the deployment's budget.
A kept connection that had been closed when the request came is no failure: the request goes out on a new one, once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from operator import attrgetter

import httpx
from msgspec import Struct
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from gateway.credentials import certificates
from gateway.credentials.keyring import Keyring
from gateway.dialects.base import Call, Dialect
from gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamLeft,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamUnreachable,
)
from gateway.transport.base import Answer, Sent, Transport, unheard
from gateway.transport.foreign import Foreign
from gateway.transport.http1 import Pool
from gateway.types import Provider

ERROR_BODY_MAX = 64 * 1024
WAIT_MAX_S = 10.0
"""A provider that asks for more is left alone, and its client told when to come back."""
WAIT_MAX_ELSEWHERE_S = 0.3
"""The same where another deployment can serve the request meanwhile."""
BACKOFF = wait_random_exponential(multiplier=0.25, max=4.0)
_PLACE = attrgetter(
    "dialect", "base_url", "max_connections", "timeouts.connect_s", "connection_age_max_s", "proxy", "tls"
)
RETRYABLE = (UpstreamUnreachable, UpstreamFailed, UpstreamOverloaded, UpstreamRateLimited)

TransportFor = Callable[[Provider], Transport | httpx.AsyncBaseTransport]


def real_transport(provider: Provider) -> Transport:
    """A pool of connections to one provider."""
    return Pool(provider, certificates.context(provider.tls))


def ignored(_reason: str) -> None:
    """For who need not know that a call went out again."""


class Terms(Struct, frozen=True):
    """When a call may be made again: before `until` (loop time), after a wait of at most `wait_max_s`, and if `may`."""

    until: float
    wait_max_s: float
    may: Callable[[GatewayError], bool]  # counts the retry that it allows
    now: Callable[[], float]
    sent: Sent = unheard  # told each time that the call goes out
    again: Callable[[str], None] = ignored  # told why, when it goes out again and nobody was asked
    tokens: int = 0  # about, in and out

    def over(self, state: RetryCallState) -> bool:
        """Whether the next attempt is not to be made."""
        wait_s = state.upcoming_sleep
        return wait_s > self.wait_max_s or self.now() + wait_s >= self.until or not self.may(_failure(state))


ONCE = Terms(math.inf, 0.0, lambda _: False, time.monotonic)


class Upstream:
    """Holds one transport per provider for as long as its settings do not change."""

    def __init__(
        self, transport_for: TransportFor, keyring: Keyring, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._transport_for = transport_for
        self._keyring = keyring
        self._sleep = sleep
        self._transports: dict[str, tuple[Provider, Transport]] = {}
        self._retired: list[Transport] = []  # requests of older settings may still use them

    async def open(self, call: Call, provider: Provider, dialect: Dialect, terms: Terms | None = None) -> Answer:
        """The 2xx answer to `call`; every other end is a leaf of the error tree.  Without terms it is made once."""
        try:
            return await self._proven(call, provider, dialect, terms or ONCE)
        except RETRYABLE as error:
            if terms is None or provider.retries_max < 1:
                raise
            return await self._again(call, provider, dialect, terms, error)

    async def _again(
        self, call: Call, provider: Provider, dialect: Dialect, terms: Terms, first: GatewayError
    ) -> Answer:
        known = [first]  # the first attempt has been made: its failure stands for it

        async def attempt() -> Answer:
            if known:
                raise known.pop()
            return await self._proven(call, provider, dialect, terms)

        retrying = AsyncRetrying(
            stop=lambda state: state.attempt_number > provider.retries_max or terms.over(state),
            wait=_pause,
            retry=retry_if_exception_type(RETRYABLE),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(attempt)

    async def _proven(self, call: Call, provider: Provider, dialect: Dialect, terms: Terms) -> Answer:
        """With its provider's credentials, or with one key after another until one is good."""
        if not provider.keys:
            return await self._once(await self._keyring.proven(call, provider), provider, dialect, terms)
        bunch, failure = self._keyring.bunch(provider), None
        for _ in range(len(provider.keys) + 1):  # one of them may have got another value
            key = await bunch.next(terms.tokens)
            if key is None:
                break
            if failure is not None:
                terms.again(failure.code)
            try:
                answer = await self._once(key.on(call), key.of(provider), dialect, terms)
            except GatewayError as error:
                failure = error
                if not await bunch.refused(key, error):
                    raise
            else:
                bunch.served(key)
                return answer
        raise bunch.exhausted(failure)

    async def _once(self, call: Call, provider: Provider, dialect: Dialect, terms: Terms) -> Answer:
        transport = self._transport(provider)
        try:
            answer = await transport.send(call, terms.sent)
        except UpstreamLeft as left:  # a connection that was closed while it was idle is nobody's failure
            terms.again(left.code)
            answer = await transport.send(call, terms.sent)
        if 200 <= answer.status < 300 and (wrong := _unreadable(answer)) is None:
            return answer
        async with answer:
            if answer.status < 300:
                raise UpstreamBroken(f"Provider {provider.id} answered with {wrong}.")
            if answer.status < 400:
                raise UpstreamBroken(f"Provider {provider.id} answered {answer.status}; redirects are not followed.")
            body = await answer.body(ERROR_BODY_MAX)
            raise dialect.error(answer.status, answer.headers, body, provider)

    def _transport(self, provider: Provider) -> Transport:
        held = self._transports.get(provider.id)
        if held is not None and (held[0] is provider or _same_place(held[0], provider)):
            return held[1]
        if held is not None:
            self._retired.append(held[1])
        found = self._transport_for(provider)
        transport = Foreign(provider, found) if isinstance(found, httpx.AsyncBaseTransport) else found
        self._transports[provider.id] = (provider, transport)
        return transport

    async def close(self) -> None:
        """Closes every connection."""
        for transport in [*self._retired, *(held for _, held in self._transports.values())]:
            await transport.close()
        self._keyring.close()
        self._retired.clear()
        self._transports.clear()


def _same_place(one: Provider, other: Provider) -> bool:
    """Whether two versions of a provider's settings can share their connections."""
    return _PLACE(one) == _PLACE(other)


def _unreadable(answer: Answer) -> str | None:
    """What a successful answer is that no dialect reads: a web page, or compressed though we ask for identity.

    Nothing is ever decompressed, so a small reply cannot become a large one.
    """
    encoding = answer.header("content-encoding")
    if encoding and encoding.lower() != "identity":
        return f"a body in the encoding {encoding[:20]!r}, which was not asked for"
    return "a web page" if answer.header("content-type").startswith("text/html") else None


def _failure(state: RetryCallState) -> GatewayError:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, GatewayError) else UpstreamFailed("The provider failed.")


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: the provider's own word, else full jitter."""
    advised = _failure(state).retry_after_s
    return BACKOFF(state) if advised is None else advised

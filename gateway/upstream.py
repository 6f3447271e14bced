"""The only module that talks HTTP to providers.  Retries live here.

Calls go through httpx's transport interface on the aiohttp engine, without a client around it: no redirects are
followed, no cookies kept, no bodies decompressed.  A retry happens only before the first byte of a reply, only for
failures that say so, at most `provider.retries_max` times, with full jitter or the provider's own retry-after.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Self

import httpx
from httpx_aiohttp import AiohttpTransport
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from gateway.dialects.base import Call, Dialect
from gateway.errors import (
    GatewayError,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.types import Provider

ERROR_BODY_MAX = 64 * 1024
RETRY_AFTER_MAX_S = 10.0  # a provider that asks for more is left to the next step of the plan
BACKOFF = wait_random_exponential(multiplier=0.25, max=4.0)
RETRYABLE = (UpstreamUnreachable, UpstreamFailed, UpstreamOverloaded, UpstreamRateLimited)

TransportFor = Callable[[Provider], httpx.AsyncBaseTransport]


def real_transport(provider: Provider) -> httpx.AsyncBaseTransport:
    """A pool of connections to one provider."""
    limits = httpx.Limits(max_connections=provider.max_connections, keepalive_expiry=30.0)
    return AiohttpTransport(limits=limits, verify=_tls(), trust_env=False)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class Answer:
    """A reply whose status and headers are here and whose body is still coming.  Use as a context manager."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._response.aclose()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes.  Raises UpstreamBroken, UpstreamTimeout."""
        try:
            async for chunk in self._response.stream:  # type: ignore[union-attr]  # an async transport's stream is async
                yield chunk
        except httpx.TimeoutException as error:
            raise UpstreamTimeout("The provider stopped sending in the middle of its reply.") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise UpstreamBroken("The provider's reply broke off.") from error

    async def body(self, limit: int) -> bytes:
        """The body, at most `limit` bytes of it; a body that breaks off is what came."""
        parts: list[bytes] = []
        size = 0
        try:
            async for chunk in self.chunks():
                parts.append(chunk)
                size += len(chunk)
                if size >= limit:
                    break
        except GatewayError:
            pass  # an error page cut short still tells its status
        return b"".join(parts)[:limit]


class Upstream:
    """Holds one transport per provider for as long as its settings do not change."""

    def __init__(
        self, transport_for: TransportFor = real_transport, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._transport_for = transport_for
        self._sleep = sleep
        self._transports: dict[str, tuple[Provider, httpx.AsyncBaseTransport]] = {}
        self._retired: list[httpx.AsyncBaseTransport] = []  # requests of older settings may still use them

    async def open(
        self, call: Call, provider: Provider, dialect: Dialect, on_retry: Callable[[GatewayError], None]
    ) -> Answer:
        """The 2xx answer to `call`; every other end is a leaf of the error tree.  `on_retry` hears of each retry."""
        try:
            return await self._once(call, provider, dialect)
        except RETRYABLE as error:
            if provider.retries_max < 1 or not _worth_waiting(error):
                raise
            return await self._again(call, provider, dialect, on_retry, error)

    async def _again(
        self,
        call: Call,
        provider: Provider,
        dialect: Dialect,
        on_retry: Callable[[GatewayError], None],
        first: GatewayError,
    ) -> Answer:
        known = [first]  # the first attempt has been made: its failure stands for it

        async def attempt() -> Answer:
            if known:
                raise known.pop()
            return await self._once(call, provider, dialect)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(1 + provider.retries_max),
            wait=_pause,
            retry=retry_if_exception(lambda error: isinstance(error, RETRYABLE) and _worth_waiting(error)),
            sleep=self._sleep,
            before_sleep=lambda state: on_retry(_failure(state)),
            reraise=True,
        )
        return await retrying(attempt)

    async def _once(self, call: Call, provider: Provider, dialect: Dialect) -> Answer:
        request = httpx.Request(
            call.method,
            _url(call.url),
            headers=call.headers,
            content=call.body,
            extensions={"timeout": {"connect": provider.timeouts.connect_s, "pool": provider.timeouts.connect_s}},
        )
        try:
            answer = Answer(await self._transport(provider).handle_async_request(request))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise UpstreamUnreachable(f"Provider {provider.id} cannot be reached.") from error
        except httpx.TimeoutException as error:
            raise UpstreamTimeout(f"Provider {provider.id} did not answer in time.") from error
        except httpx.TransportError as error:
            raise UpstreamBroken(f"Provider {provider.id} closed the connection before answering.") from error
        if 200 <= answer.status < 300:
            return answer
        async with answer:
            if answer.status < 400:
                raise UpstreamBroken(f"Provider {provider.id} answered {answer.status}; redirects are not followed.")
            body = await answer.body(ERROR_BODY_MAX)
            raise dialect.error(answer.status, answer.headers, body, provider)

    def _transport(self, provider: Provider) -> httpx.AsyncBaseTransport:
        held = self._transports.get(provider.id)
        if held is not None and (held[0] is provider or _same_place(held[0], provider)):
            return held[1]
        if held is not None:
            self._retired.append(held[1])
        transport = self._transport_for(provider)
        self._transports[provider.id] = (provider, transport)
        return transport

    async def close(self) -> None:
        """Closes every connection."""
        for transport in [*self._retired, *(held for _, held in self._transports.values())]:
            await transport.aclose()
        self._retired.clear()
        self._transports.clear()


@lru_cache(maxsize=1024)
def _url(url: str) -> httpx.URL:
    return httpx.URL(url)


def _same_place(one: Provider, other: Provider) -> bool:
    """Whether two versions of a provider's settings can share their connections."""
    return (one.dialect, one.base_url, one.max_connections) == (other.dialect, other.base_url, other.max_connections)


def _failure(state: RetryCallState) -> GatewayError:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, GatewayError) else UpstreamFailed("The provider failed.")


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: the provider's own word, else full jitter."""
    advised = _failure(state).retry_after_s
    return BACKOFF(state) if advised is None else advised


def _worth_waiting(error: BaseException) -> bool:
    advised = getattr(error, "retry_after_s", None)
    return advised is None or advised <= RETRY_AFTER_MAX_S

"""Any httpx transport as the way to a provider: the simulated one inside the process, or a test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx

from gateway.dialects.base import Call
from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from gateway.transport.base import Answer, Sent, unheard
from gateway.types import Provider

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class ForeignAnswer(Answer):
    """See Answer."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.stream:  # type: ignore[union-attr]  # an async transport's stream is async
                yield chunk
        except httpx.TimeoutException as error:
            raise UpstreamTimeout("The provider stopped sending in the middle of its reply.") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise UpstreamBroken("The provider's reply broke off.") from error

    async def close(self) -> None:
        await self._response.aclose()


class Foreign:
    """See Transport.  Maps httpx's errors, at this one border, to ours."""

    def __init__(self, provider: Provider, transport: httpx.AsyncBaseTransport) -> None:
        self._provider, self._transport = provider, transport

    async def send(self, call: Call, sent: Sent = unheard) -> Answer:
        provider, connect_s = self._provider, self._provider.timeouts.connect_s
        timeout = {"connect": connect_s, "pool": connect_s}
        request = httpx.Request(
            call.method, call.url, headers=call.headers, content=call.body, extensions={"timeout": timeout}
        )
        try:
            return ForeignAnswer(await self._handed(request, sent))
        except UNSENT as error:
            raise UpstreamUnreachable(f"Provider {provider.id} cannot be reached.") from error
        except httpx.TimeoutException as error:
            raise UpstreamTimeout(f"Provider {provider.id} did not answer in time.") from error
        except httpx.TransportError as error:
            raise UpstreamBroken(f"Provider {provider.id} closed the connection before answering.") from error

    async def _handed(self, request: httpx.Request, sent: Sent) -> httpx.Response:
        """The reply.  What goes on inside is not seen: whatever does not say otherwise may have been sent."""
        try:
            response = await self._transport.handle_async_request(request)
        except UNSENT:
            raise
        except BaseException:
            sent()
            raise
        sent()
        return response

    async def close(self) -> None:
        await self._transport.aclose()

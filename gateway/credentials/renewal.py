"""A token that expires: one serves all calls, and is renewed on a thread while the old one still serves."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.dialects.base import Call
from gateway.errors import GatewayError, UpstreamDenied, UpstreamUnreachable
from gateway.types import Provider

EARLY_S = 300.0
"""Before it expires a token is renewed while it still serves."""
LATE_S = 10.0
"""A token with less to live may expire on its way."""
TIMEOUT_S = 15.0


class Token(NamedTuple):
    """The headers that prove it is us, until then."""

    headers: Mapping[str, str]
    expires: float  # unix seconds


class Renewed(ABC):
    """See Credentials.  One renewal runs at a time."""

    issuer = "the issuer"
    """Whose words stand in the operator's log."""

    def __init__(self, provider: Provider, now: Callable[[], float] = time.time) -> None:
        self._provider, self._now = provider, now
        self._token = Token({}, 0.0)
        self._renewal: asyncio.Task[None] | None = None

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:  # noqa: ARG002 - a token fits any call
        """See Credentials.headers."""
        left_s = self._token.expires - self._now()
        if left_s < EARLY_S:
            renewal = self._renewing()
            if left_s < LATE_S:
                await asyncio.shield(renewal)
        return self._token.headers

    @abstractmethod
    def _fetch(self) -> Token:
        """A new token; runs on a thread.  Raises what `denied` or `unreachable` make of the issuer's errors."""

    def denied(self, cause: BaseException) -> GatewayError:
        """There is no proof to be had."""
        return self._noted(
            UpstreamDenied(f"Provider {self._provider.id} refused the gateway's own key or account."), cause
        )

    def unreachable(self, cause: BaseException) -> GatewayError:
        """Whoever issues it cannot be reached."""
        return self._noted(UpstreamUnreachable(f"Provider {self._provider.id} cannot be reached."), cause)

    def _renewing(self) -> asyncio.Task[None]:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew())
            self._renewal.add_done_callback(_heard)
        return self._renewal

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self._token = await asyncio.to_thread(self._fetch)
        except TimeoutError as error:
            raise self.unreachable(error) from error

    def _noted(self, error: GatewayError, cause: BaseException) -> GatewayError:
        """With what the issuer says, for the operator's log and not for the client."""
        error.add_note(f"{self.issuer} says: {cause or type(cause).__name__}"[:600])
        return error


def _heard(renewal: asyncio.Task[None]) -> None:
    """A renewal that failed while the old token serves is no one's failure: the next call tries again."""
    if not renewal.cancelled():
        renewal.exception()

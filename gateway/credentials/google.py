"""Google's OAuth tokens, as google-auth finds them: https://cloud.google.com/docs/authentication/application-default-credentials

options:
  credentials: google
  credentials_file: /etc/tollgate/key.json   # a service account's; else what the environment has:
                                             # GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, the metadata server
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any, TypeAlias

import google.auth
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport import Request
from google.auth.transport.requests import Request as OverNetwork
from google.oauth2.service_account import Credentials as ServiceAccount

from gateway.dialects.base import Call
from gateway.errors import GatewayError, UpstreamDenied, UpstreamUnreachable
from gateway.types import Provider

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
EARLY_S = 300.0
"""Before it expires a token is renewed while it still serves."""
LATE_S = 10.0
"""A token with less to live may expire on its way."""
TIMEOUT_S = 15.0

Issued: TypeAlias = Any
"""google.auth.credentials.Credentials, which is untyped."""


def load(provider: Provider) -> Issued:
    """The service account in the provider's file, else what the environment has.  Raises GoogleAuthError, OSError."""
    file = provider.options.get("credentials_file")
    if file is not None:
        return ServiceAccount.from_service_account_file(str(file), scopes=SCOPES)  # type: ignore[no-untyped-call]  # google-auth has no types
    return google.auth.default(scopes=SCOPES)[0]


class GoogleCredentials:
    """See Credentials.  One token serves all calls; one renewal runs at a time, on a thread."""

    def __init__(
        self,
        provider: Provider,
        *,
        load: Callable[[Provider], Issued] = load,
        over: Callable[[], Request] = OverNetwork,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._provider, self._load, self._over, self._now = provider, load, over, now
        self._issued: Issued = None
        self._headers: Mapping[str, str] = {}
        self._expires = 0.0  # unix seconds
        self._renewal: asyncio.Task[None] | None = None

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:  # noqa: ARG002 - a token fits any call
        """See Credentials.headers."""
        left_s = self._expires - self._now()
        if left_s < EARLY_S:
            renewal = self._renewing()
            if left_s < LATE_S:
                await asyncio.shield(renewal)
        return self._headers

    def _renewing(self) -> asyncio.Task[None]:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._renew())
            self._renewal.add_done_callback(_heard)
        return self._renewal

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                issued = await asyncio.to_thread(self._fetch)
        except (TransportError, TimeoutError) as error:
            raise _noted(UpstreamUnreachable(f"Provider {self._provider.id} cannot be reached."), error) from error
        except (GoogleAuthError, OSError, ValueError) as error:
            message = f"Provider {self._provider.id} refused the gateway's own key or account."
            raise _noted(UpstreamDenied(message), error) from error
        headers: dict[str, str] = {}
        issued.apply(headers)
        self._headers = headers
        self._expires = float("inf") if issued.expiry is None else issued.expiry.replace(tzinfo=UTC).timestamp()

    def _fetch(self) -> Issued:
        if self._issued is None:
            self._issued = self._load(self._provider)
        self._issued.refresh(self._over())
        return self._issued


def _noted(error: GatewayError, cause: BaseException) -> GatewayError:
    """With what Google says, for the operator's log and not for the client."""
    error.add_note(f"google-auth says: {cause or type(cause).__name__}"[:600])
    return error


def _heard(renewal: asyncio.Task[None]) -> None:
    """A renewal that failed while the old token serves is no one's failure: the next call tries again."""
    if not renewal.cancelled():
        renewal.exception()

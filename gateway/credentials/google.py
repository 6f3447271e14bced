"""Google's OAuth tokens, as google-auth finds them: https://cloud.google.com/docs/authentication/application-default-credentials

options:
  credentials: google
  credentials_file: /etc/tollgate/key.json   # a service account's; else what the environment has:
                                             # GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, the metadata server
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC
from typing import Any, TypeAlias

import google.auth
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport import Request
from google.auth.transport.requests import Request as OverNetwork
from google.oauth2.service_account import Credentials as ServiceAccount

from gateway.credentials.renewal import Renewed, Token
from gateway.types import Provider

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

Issued: TypeAlias = Any
"""google.auth.credentials.Credentials, which is untyped."""


def load(provider: Provider) -> Issued:
    """The service account in the provider's file, else what the environment has.  Raises GoogleAuthError, OSError."""
    file = provider.options.get("credentials_file")
    if file is not None:
        return ServiceAccount.from_service_account_file(str(file), scopes=SCOPES)  # type: ignore[no-untyped-call]  # google-auth has no types
    return google.auth.default(scopes=SCOPES)[0]


class GoogleCredentials(Renewed):
    """See Credentials."""

    issuer = "google-auth"

    def __init__(
        self,
        provider: Provider,
        *,
        load: Callable[[Provider], Issued] = load,
        over: Callable[[], Request] = OverNetwork,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(provider, now)
        self._load, self._over = load, over
        self._issued: Issued = None

    def _fetch(self) -> Token:
        try:
            if self._issued is None:
                self._issued = self._load(self._provider)
            self._issued.refresh(self._over())
        except TransportError as error:
            raise self.unreachable(error) from error
        except (GoogleAuthError, OSError, ValueError) as error:
            raise self.denied(error) from error
        headers: dict[str, str] = {}
        self._issued.apply(headers)
        expiry = self._issued.expiry
        return Token(headers, float("inf") if expiry is None else expiry.replace(tzinfo=UTC).timestamp())

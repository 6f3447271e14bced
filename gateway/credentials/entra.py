"""Microsoft Entra's tokens for Azure, as azure-identity gets them.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/managed-identity

options:
  credentials: entra
  tenant_id: ...                     # an application's own secret; else the environment's: AZURE_CLIENT_ID and its
  client_id: ...                     # like, a workload's identity, the machine's managed identity, `az login`
  client_secret: ${AZURE_SECRET}
  scope: https://cognitiveservices.azure.com/.default
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from azure.core.exceptions import AzureError, ServiceRequestError, ServiceResponseError
from azure.identity import ClientSecretCredential, DefaultAzureCredential

from gateway.credentials.renewal import Renewed, Token
from gateway.types import Provider

SCOPE = "https://cognitiveservices.azure.com/.default"


class Granted(Protocol):
    """A token of azure-identity."""

    @property
    def token(self) -> str:
        """What proves it."""
        ...

    @property
    def expires_on(self) -> int:
        """Unix seconds."""
        ...


class Identity(Protocol):
    """Who we are, as azure-identity knows it."""

    def get_token(self, *scopes: str) -> Granted:
        """A token for the scopes.  Raises AzureError."""
        ...


def load(provider: Provider) -> Identity:
    """The application that the provider's options name, else whoever the environment says.  Raises ValueError."""
    named = [str(provider.options.get(name) or "") for name in ("tenant_id", "client_id", "client_secret")]
    return ClientSecretCredential(*named) if any(named) else DefaultAzureCredential()


class EntraCredentials(Renewed):
    """See Credentials."""

    issuer = "Entra"

    def __init__(
        self,
        provider: Provider,
        *,
        load: Callable[[Provider], Identity] = load,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(provider, now)
        self._load = load
        self._identity: Identity | None = None
        self._scope = str(provider.options.get("scope", SCOPE))

    def _fetch(self) -> Token:
        try:
            if self._identity is None:
                self._identity = self._load(self._provider)
            granted = self._identity.get_token(self._scope)
        except (ServiceRequestError, ServiceResponseError) as error:
            raise self.unreachable(error) from error
        except (AzureError, ValueError) as error:
            raise self.denied(error) from error
        return Token({"authorization": f"Bearer {granted.token}"}, float(granted.expires_on))

"""Microsoft Entra's tokens: asked for the right scope, as whoever the options name."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError
from azure.identity import ClientSecretCredential, DefaultAzureCredential

from gateway import plugins
from gateway.credentials.entra import SCOPE, EntraCredentials, load
from gateway.dialects.base import Call
from gateway.errors import UpstreamDenied, UpstreamUnreachable
from gateway.types import Provider

AZURE = Provider("azure", "openai", "https://x.openai.azure.com/openai/v1", options={"credentials": "entra"})
CALL = Call("https://example.org/x", b"{}", {})
NOW = 1_700_000_000.0


class Granted(NamedTuple):
    token: str
    expires_on: int


class Identity:
    """Grants one token an hour long, or fails."""

    def __init__(self, failure: AzureError | None = None) -> None:
        self.failure = failure
        self.asked: list[tuple[str, ...]] = []

    def get_token(self, *scopes: str) -> Granted:
        self.asked.append(scopes)
        if self.failure:
            raise self.failure
        return Granted(f"token-{len(self.asked)}", int(NOW) + 3600)


async def test_one_token_for_the_scope_serves_every_call() -> None:
    identity = Identity()
    credentials = EntraCredentials(AZURE, load=lambda _: identity, now=lambda: NOW)
    for _ in range(3):
        assert await credentials.headers(AZURE, CALL) == {"authorization": "Bearer token-1"}
    assert identity.asked == [(SCOPE,)]


@pytest.mark.parametrize(
    ("failure", "leaf"),
    [
        (ServiceRequestError("no route"), UpstreamUnreachable),
        (ClientAuthenticationError("AADSTS7000215: invalid client secret"), UpstreamDenied),
    ],
)
async def test_what_entra_says_is_a_note_for_the_operator_and_not_for_the_client(
    failure: AzureError, leaf: type[Exception]
) -> None:
    credentials = EntraCredentials(AZURE, load=lambda _: Identity(failure), now=lambda: NOW)
    with pytest.raises(leaf) as raised:
        await credentials.headers(AZURE, CALL)
    assert "invalid client secret" not in str(raised.value)
    assert raised.value.__notes__[0].startswith("Entra says: ")


def test_an_application_is_asked_by_its_secret_and_anyone_else_by_the_environment() -> None:
    named = {"tenant_id": "00000000-0000-0000-0000-000000000000", "client_id": "app", "client_secret": "s"}
    assert isinstance(load(Provider("azure", "openai", options=named)), ClientSecretCredential)
    assert isinstance(load(AZURE), DefaultAzureCredential)


async def test_an_application_named_by_halves_is_our_own_affair() -> None:
    provider = Provider("azure", "openai", options={"tenant_id": "t", "client_id": "app"})
    with pytest.raises(UpstreamDenied):
        await EntraCredentials(provider).headers(provider, CALL)


def test_it_is_found_by_its_name() -> None:
    assert isinstance(plugins.credentials(AZURE), EntraCredentials)

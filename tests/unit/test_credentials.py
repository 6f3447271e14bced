"""What proves calls to a provider: fetched once, renewed early, held by provider."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from gateway import plugins, settings
from gateway.credentials.google import GoogleCredentials
from gateway.credentials.keyring import Keyring
from gateway.credentials.renewal import EARLY_S
from gateway.dialects.base import Call
from gateway.errors import UpstreamDenied, UpstreamUnreachable
from gateway.settings import SettingsError
from gateway.types import Provider

VERTEX = Provider("vertex", "gemini", "https://aiplatform.googleapis.com/v1", options={"credentials": "google"})
CALL = Call("https://example.org/x", b"{}", {"content-type": "application/json"})


class Issued:
    """What google-auth hands out; each renewal gives the next token, an hour long."""

    def __init__(self, clock: Clock, *failures: Exception | None) -> None:
        self.clock = clock
        self.failures = list(failures)
        self.renewals = 0
        self.expiry: datetime | None = None
        self.gate = threading.Event()
        self.gate.set()

    def refresh(self, request: object) -> None:
        assert self.gate.wait(5)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.renewals += 1
        self.expiry = datetime.fromtimestamp(self.clock.now + 3600, UTC).replace(tzinfo=None)

    def apply(self, headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer token-{self.renewals}"


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def made(issued: Issued, provider: Provider = VERTEX) -> GoogleCredentials:
    return GoogleCredentials(provider, load=lambda _: issued, over=object, now=issued.clock)  # type: ignore[arg-type]


async def test_a_token_is_fetched_once_and_serves_until_it_is_nearly_over() -> None:
    issued = Issued(Clock())
    credentials = made(issued)
    for _ in range(3):
        assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-1"}
    issued.clock.now += 3600 - EARLY_S - 1
    assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-1"}
    assert issued.renewals == 1


async def test_calls_at_once_share_one_fetch() -> None:
    issued = Issued(Clock())
    credentials = made(issued)
    told = await asyncio.gather(*(credentials.headers(VERTEX, CALL) for _ in range(50)))
    assert {each["authorization"] for each in told} == {"Bearer token-1"}
    assert issued.renewals == 1


async def test_the_old_token_serves_while_the_new_one_is_fetched() -> None:
    issued = Issued(Clock())
    credentials = made(issued)
    await credentials.headers(VERTEX, CALL)
    issued.clock.now += 3600 - EARLY_S + 1
    issued.gate.clear()
    assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-1"}
    issued.gate.set()
    await until_renewed(credentials)
    assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-2"}


async def test_a_renewal_that_fails_is_tried_again_while_the_old_token_serves() -> None:
    issued = Issued(Clock(), None, TransportError("no route"))
    credentials = made(issued)
    await credentials.headers(VERTEX, CALL)
    issued.clock.now += 3600 - EARLY_S + 1
    assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-1"}
    await until_renewed(credentials)
    assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-1"}
    await until_renewed(credentials)
    assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-2"}


async def until_renewed(credentials: GoogleCredentials) -> None:
    assert credentials._renewal is not None
    await asyncio.wait([credentials._renewal])


async def test_a_token_that_is_over_is_never_sent() -> None:
    issued = Issued(Clock(), None, RefreshError("revoked"))
    credentials = made(issued)
    await credentials.headers(VERTEX, CALL)
    issued.clock.now += 3600
    with pytest.raises(UpstreamDenied):
        await credentials.headers(VERTEX, CALL)
    assert await credentials.headers(VERTEX, CALL) == {"authorization": "Bearer token-2"}


@pytest.mark.parametrize(
    ("failure", "leaf"),
    [
        (TransportError("no route"), UpstreamUnreachable),
        (RefreshError("invalid_grant"), UpstreamDenied),
        (DefaultCredentialsError("none found"), UpstreamDenied),
        (PermissionError("key.json"), UpstreamDenied),
        (ValueError("not a key"), UpstreamDenied),
    ],
)
async def test_what_google_says_is_a_note_for_the_operator_and_not_for_the_client(
    failure: Exception, leaf: type[Exception]
) -> None:
    with pytest.raises(leaf) as raised:
        await made(Issued(Clock(), failure)).headers(VERTEX, CALL)
    assert str(failure) not in str(raised.value)
    assert raised.value.__notes__ == [f"google-auth says: {failure}"]


async def test_a_file_that_is_not_there_is_our_own_affair() -> None:
    provider = Provider("vertex", "gemini", options={"credentials_file": "/nowhere/key.json"})
    with pytest.raises(UpstreamDenied):
        await GoogleCredentials(provider).headers(provider, CALL)


class Fixed:
    """Counts itself."""

    made = 0

    def __init__(self, provider: Provider) -> None:
        Fixed.made += 1

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:
        return {"authorization": "Bearer t", "content-type": "x"}


async def test_the_keyring_adds_what_a_providers_credentials_say() -> None:
    ring = Keyring(Fixed, time.monotonic)
    proven = await ring.proven(CALL, VERTEX)
    assert proven.headers == {"content-type": "x", "authorization": "Bearer t"}
    assert (proven.url, proven.body, CALL.headers) == (CALL.url, CALL.body, {"content-type": "application/json"})


async def test_a_call_to_a_provider_without_credentials_is_not_touched() -> None:
    assert await Keyring(Fixed, time.monotonic).proven(CALL, Provider("openai", "openai")) is CALL


async def test_credentials_are_made_again_when_the_providers_options_change() -> None:
    Fixed.made = 0
    ring = Keyring(Fixed, time.monotonic)
    for options in ({"credentials": "x"}, {"credentials": "x"}, {"credentials": "x", "credentials_file": "y"}):
        await ring.proven(CALL, Provider("vertex", "gemini", options=options))
    assert Fixed.made == 2


def test_credentials_are_found_by_entry_point() -> None:
    assert isinstance(plugins.credentials(VERTEX), GoogleCredentials)


def test_settings_say_which_credentials_are_not_there() -> None:
    text = """
providers:
  cloud: {dialect: gemini, base_url: "https://example.org", options: {credentials: gogle}}
deployments: [{id: a, provider: cloud, upstream_model: gemini-2.5-flash}]
tenants: []
"""
    with pytest.raises(SettingsError, match=r"unknown credentials 'gogle'.*google"):
        settings.parse(text, {})


def test_a_project_on_vertex_needs_no_more_than_its_name() -> None:
    text: Any = """
providers:
  vertex: {options: {project: my-project}}
deployments:
  - {id: flash, provider: vertex, upstream_model: gemini-2.5-flash}
  - {id: regional, provider: vertex, upstream_model: gemini-2.5-flash, price: {multiplier: 1.1}}
tenants: []
"""
    found = settings.parse(text, {})
    assert found.providers["vertex"].options["credentials"] == "google"
    flash, regional = found.deployments["flash"].price, found.deployments["regional"].price
    assert flash.rates["input"] == 300_000_000
    assert regional.rates == {bucket: rate * 11 // 10 for bucket, rate in flash.rates.items()}

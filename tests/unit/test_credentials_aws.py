"""Amazon's signatures: what is signed, with whose key, and how often anyone looks for the key."""

from __future__ import annotations

import asyncio
import calendar
import time
from pathlib import Path
from typing import Any

import pytest
from botocore import auth
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ConnectTimeoutError, NoCredentialsError

from gateway import plugins
from gateway.credentials.aws import SERVES_S, AwsCredentials, load, region, signature
from gateway.credentials.keyring import Keyring
from gateway.credentials.renewal import EARLY_S
from gateway.dialects.base import Call
from gateway.errors import UpstreamDenied, UpstreamUnreachable
from gateway.types import Provider

BASE = "https://bedrock-runtime.{region}.amazonaws.com"
EXAMPLE = ReadOnlyCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
THEN = calendar.timegm((2015, 8, 30, 12, 36, 0))
URL = "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
CALL = Call(URL, b'{"messages":[]}', {"content-type": "application/json", "accept": "application/json"})


def provider(**options: Any) -> Provider:
    return Provider("amazon", "bedrock", BASE, options={"credentials": "aws", "region": "eu-west-1", **options})


def test_the_example_of_amazons_own_test_suite_has_its_signature() -> None:
    call = Call("https://example.amazonaws.com/", b"", {}, "GET")
    assert signature(call, EXAMPLE, "us-east-1", "service", THEN) == {
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    }


@pytest.mark.parametrize("token", [None, "a-token"])
def test_a_signature_is_what_botocore_would_send(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    key = ReadOnlyCredentials("AKIDEXAMPLE", "secret", token)
    ours = signature(CALL, key, "us-east-1", "bedrock", THEN)
    moment = auth.datetime.datetime.fromtimestamp(THEN, auth.datetime.timezone.utc)
    monkeypatch.setattr(auth, "get_current_datetime", lambda: moment)
    request = AWSRequest("POST", CALL.url, {"content-type": "application/json"}, CALL.body)
    SigV4Auth(key, "bedrock", "us-east-1").add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items() if name.lower() != "content-type"}
    assert ours == theirs


def test_every_byte_of_body_and_address_is_signed() -> None:
    calls = [
        CALL,
        Call(CALL.url, CALL.body + b" ", CALL.headers),
        Call(CALL.url.replace("converse", "converse-stream"), CALL.body, CALL.headers),
        Call(CALL.url.replace("%3A", ":"), CALL.body, CALL.headers),
        Call(CALL.url, CALL.body, {**CALL.headers, "content-type": "text/plain"}),
    ]
    found = [signature(call, EXAMPLE, "us-east-1", "bedrock", THEN)["authorization"] for call in calls]
    found += [signature(CALL, EXAMPLE, "us-east-2", "bedrock", THEN)["authorization"]]
    found += [signature(CALL, EXAMPLE, "us-east-1", "bedrock", THEN + 1)["authorization"]]
    assert len(set(found)) == len(found)


def test_the_region_is_stated_or_stands_in_the_host() -> None:
    def of(base_url: str, **options: Any) -> str:
        return region(Provider("amazon", "bedrock", base_url, options=options))

    assert of("https://bedrock-runtime.us-east-1.amazonaws.com", region="eu-west-1") == "eu-west-1"
    assert of("https://bedrock-runtime.ap-southeast-2.amazonaws.com") == "ap-southeast-2"
    assert of("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com") == "us-gov-west-1"
    with pytest.raises(UpstreamDenied, match="no region"):
        of("https://bedrock.example.com")


def test_a_stated_key_is_used_as_it_is() -> None:
    key = load(provider(access_key_id="AKID", secret_access_key="s", session_token="t")).get_frozen_credentials()
    assert (key.access_key, key.secret_key, key.token) == ("AKID", "s", "t")
    assert load(provider(access_key_id="AKID", secret_access_key="s")).token is None


def test_the_environment_is_asked_without_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert load(provider()).access_key == "AKENV"
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id = AKWORK\naws_secret_access_key = s\n")
    assert load(provider(profile="work")).access_key == "AKWORK"


class Issued:
    """A key that changes each time it is looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.fault: Exception | None = None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return ReadOnlyCredentials(f"AK{self.looks}", "s", None)


class World:
    """Credentials whose clock and key are ours."""

    def __init__(self) -> None:
        self.time = float(THEN)
        self.issued = Issued()
        self.provider = provider()
        self.credentials = AwsCredentials(self.provider, load=lambda _: self.issued, now=lambda: self.time)

    async def key(self) -> str:
        headers = await self.credentials.headers(self.provider, CALL)
        return headers["authorization"].split("Credential=")[1].split("/")[0]

    async def settled(self) -> None:
        """The look that is under way, if any, is over."""
        await asyncio.gather(*[task for task in asyncio.all_tasks() if task is not asyncio.current_task()])


async def test_one_look_serves_many_calls() -> None:
    world = World()
    assert await asyncio.gather(*[world.key() for _ in range(5)]) == ["AK1"] * 5
    world.time += SERVES_S - EARLY_S
    assert await world.key() == "AK1"
    assert world.issued.looks == 1


async def test_an_older_key_serves_while_the_next_is_looked_for() -> None:
    world = World()
    await world.key()
    world.time += SERVES_S - EARLY_S + 1
    assert await world.key() == "AK1"
    await world.settled()
    assert await world.key() == "AK2"
    assert world.issued.looks == 2


async def test_a_key_that_may_have_expired_is_not_used() -> None:
    world = World()
    await world.key()
    world.time += SERVES_S
    assert await world.key() == "AK2"


async def test_a_look_that_fails_while_the_key_serves_is_no_ones_failure() -> None:
    world = World()
    await world.key()
    world.time += SERVES_S - EARLY_S + 1
    world.issued.fault = NoCredentialsError()
    assert await world.key() == "AK1"
    assert await world.key() == "AK1"
    world.time += SERVES_S
    with pytest.raises(UpstreamDenied):
        await world.key()


async def test_without_a_key_the_call_is_denied_and_says_why_to_the_operator_only() -> None:
    world = World()
    world.issued.fault = NoCredentialsError()
    with pytest.raises(UpstreamDenied) as caught:
        await world.key()
    assert "credentials" not in caught.value.message
    assert caught.value.__notes__ == ["botocore says: Unable to locate credentials"]
    world.issued.fault = None
    assert await world.key() == "AK2"


async def test_nothing_found_is_denied() -> None:
    found = AwsCredentials(provider(), load=lambda _: None, now=lambda: float(THEN))
    with pytest.raises(UpstreamDenied):
        await found.headers(provider(), CALL)


async def test_an_issuer_that_cannot_be_reached_is_unreachable() -> None:
    world = World()
    world.issued.fault = ConnectTimeoutError(endpoint_url="http://169.254.169.254")
    with pytest.raises(UpstreamUnreachable):
        await world.key()


async def test_the_keyring_finds_the_signer_by_its_name() -> None:
    own = provider(access_key_id="AKID", secret_access_key="s")
    call = await Keyring(plugins.credentials, time.monotonic).proven(CALL, own)
    assert call.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/eu-west-1/bedrock/aws4_request" in call.headers["authorization"]
    assert {**CALL.headers}.items() <= {**call.headers}.items()


def test_secrets_are_not_shown() -> None:
    assert "topsecret" not in repr(provider(access_key_id="AKID", secret_access_key="topsecret"))

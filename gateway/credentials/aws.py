"""Amazon's signatures, with credentials as botocore finds them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html

options:
  credentials: aws
  region: us-east-1            # else as the host in base_url says
  access_key_id: ${AWS_ACCESS_KEY_ID}
  secret_access_key: ${AWS_SECRET_ACCESS_KEY}
  session_token: ${AWS_SESSION_TOKEN}          # of temporary credentials
  profile: production          # of the shared files, in place of a key; without either the environment's own: its
                               # variables, the default profile, the role of the container or machine
  service: bedrock             # what signatures are for
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Key
from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.exceptions import ConnectionError as Unconnected
from botocore.session import Session

from gateway.dialects.base import Call
from gateway.errors import GatewayError, UpstreamDenied, UpstreamUnreachable
from gateway.types import Provider

EARLY_S = 60.0
"""Credentials that were looked at longer ago are looked at again while they still serve."""
LATE_S = 300.0
"""botocore renews what has less than ten minutes to live, so what it gave this long ago may expire on its way."""
TIMEOUT_S = 15.0
SIGNED = ("content-type",)
"""Headers of the call under the signature, beside the host and the signer's own."""

Issued: TypeAlias = Any
"""botocore.credentials.Credentials, which is untyped."""

_REGION = re.compile(r"[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.")


def load(provider: Provider) -> Issued:
    """The credentials that the provider's options name, else those of the environment; None if there are none."""
    options = provider.options
    if "access_key_id" in options:
        token = options.get("session_token") or None
        return Key(str(options["access_key_id"]), str(options.get("secret_access_key", "")), token)
    return Session(profile=options.get("profile")).get_credentials()


def signature(call: Call, key: Issued, region: str, service: str, now: float) -> dict[str, str]:
    """The headers that sign `call` at `now`, unix seconds.  Pure.  `key` are frozen credentials of botocore."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": stamp}
    if key.token:
        added["x-amz-security-token"] = key.token
    signed = {name: value for name, value in call.headers.items() if name.lower() in SIGNED}
    request = AWSRequest(call.method, call.url, {**signed, **added}, call.body)
    request.context["timestamp"] = stamp
    signer = SigV4Auth(key, service, region)
    digest = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    proof = f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={digest}"
    return {**added, "authorization": proof}


def region(provider: Provider) -> str:
    """Where signatures hold.  Raises UpstreamDenied if neither the options nor the host say."""
    if stated := provider.options.get("region"):
        return str(stated)
    host = f"{urlsplit(provider.base_url).hostname}."
    if found := _REGION.search(host):
        return found[1]
    raise UpstreamDenied(f"Provider {provider.id} has no region to sign for.")


class AwsCredentials:
    """See Credentials.  One key signs all calls; one look at where it comes from runs at a time, on a thread."""

    def __init__(
        self,
        provider: Provider,
        *,
        load: Callable[[Provider], Issued] = load,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._provider, self._load, self._now = provider, load, now
        self._issued: Issued = None
        self._key: Issued = None  # frozen
        self._looked = float("-inf")  # unix seconds
        self._look: asyncio.Task[None] | None = None

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:
        """See Credentials.headers."""
        age_s = self._now() - self._looked
        if age_s > EARLY_S:
            look = self._looking()
            if age_s > LATE_S:
                await asyncio.shield(look)
        service = str(provider.options.get("service", "bedrock"))
        return signature(call, self._key, region(provider), service, self._now())

    def _looking(self) -> asyncio.Task[None]:
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._renew())
            self._look.add_done_callback(_heard)
        return self._look

    async def _renew(self) -> None:
        denied = f"Provider {self._provider.id} refused the gateway's own key or account."
        try:
            async with asyncio.timeout(TIMEOUT_S):
                key = await asyncio.to_thread(self._fetch)
        except (HTTPClientError, Unconnected, TimeoutError) as error:
            raise _noted(UpstreamUnreachable(f"Provider {self._provider.id} cannot be reached."), error) from error
        except (BotoCoreError, OSError, ValueError) as error:
            raise _noted(UpstreamDenied(denied), error) from error
        if key is None:
            raise _noted(UpstreamDenied(denied), LookupError("there are no credentials"))
        self._key, self._looked = key, self._now()

    def _fetch(self) -> Issued:
        if self._issued is None:
            self._issued = self._load(self._provider)
        return self._issued and self._issued.get_frozen_credentials()


def _noted(error: GatewayError, cause: BaseException) -> GatewayError:
    """With what botocore says, for the operator's log and not for the client."""
    error.add_note(f"botocore says: {cause or type(cause).__name__}"[:600])
    return error


def _heard(look: asyncio.Task[None]) -> None:
    """A look that failed while the old key serves is no one's failure: the next call looks again."""
    if not look.cancelled():
        look.exception()

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

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Key
from botocore.exceptions import BotoCoreError, ConnectionError as Unconnected, HTTPClientError, NoCredentialsError
from botocore.session import Session

from gateway.credentials.renewal import Renewed, Token
from gateway.dialects.base import Call
from gateway.errors import UpstreamDenied
from gateway.types import Provider

SERVES_S = 600.0
"""botocore renews what has less than ten minutes to live, so for so long what it gave can be used."""
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


class AwsCredentials(Renewed):
    """See Credentials.  One key signs all calls."""

    issuer = "botocore"

    def __init__(
        self,
        provider: Provider,
        *,
        load: Callable[[Provider], Issued] = load,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(provider, now)
        self._load = load
        self._issued: Issued = None
        self._key: Issued = None  # frozen

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:
        """See Credentials.headers."""
        await super().headers(provider, call)
        service = str(provider.options.get("service", "bedrock"))
        return signature(call, self._key, region(provider), service, self._now())

    def _fetch(self) -> Token:
        try:
            if self._issued is None:
                self._issued = self._load(self._provider)
            if self._issued is None:
                raise NoCredentialsError
            self._key = self._issued.get_frozen_credentials()
        except (HTTPClientError, Unconnected) as error:
            raise self.unreachable(error) from error
        except (BotoCoreError, OSError, ValueError) as error:
            raise self.denied(error) from error
        return Token({}, self._now() + SERVES_S)

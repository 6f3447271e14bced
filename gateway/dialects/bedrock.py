"""What Bedrock's APIs have in common: address, proof, errors.  https://docs.aws.amazon.com/bedrock/latest/APIReference/

options:
  region: us-east-1      # stands in base_url for {region}, and is what signatures are for
  credentials: aws       # each call is signed, see gateway.credentials.aws; else api_key is a Bedrock API key
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from gateway.dialects import refusal, relay
from gateway.errors import GatewayError
from gateway.types import Provider, Request

TIMEOUT = 504
"""What a model that worked for too long is; Amazon says 408, which means a request that took too long to come."""


def address(provider: Provider, model: str, verb: str) -> str:
    """Where `verb` is asked of a model, an inference profile or the ARN of either."""
    base = provider.base_url.replace("{region}", str(provider.options.get("region", ""))).rstrip("/")
    return f"{base}/model/{quote(model, safe='')}/{verb}"


def headers(provider: Provider, request: Request) -> dict[str, str]:
    """What every call carries; a signature comes later, and then there is no key."""
    auth = "none" if "credentials" in provider.options else "bearer"
    sent = relay.headers(provider, request, auth)
    return {**sent, "accept": "application/vnd.amazon.eventstream" if request.stream else "application/json"}


def error(status: int, headers: Mapping[str, str], body: bytes, provider: Provider, now: float) -> GatewayError:
    """See Dialect.error.  Amazon says the kind of error in a header, and only its message in the body."""
    lower = {name.lower(): value for name, value in headers.items()}
    kind = lower.get("x-amzn-errortype", "").partition(":")[0].rpartition("#")[2]
    status = TIMEOUT if kind == "ModelTimeoutException" else status
    return refusal.refusal(status, lower, _named(body, kind) if kind else body, provider, now)


def _named(body: bytes, kind: str) -> bytes:
    try:
        said = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(said, dict):
        return body
    return msgspec.json.encode({"error": {"code": kind, "message": said.get("message") or said.get("Message") or ""}})

"""What may stand in a configuration file about a provider.  See `gateway.configuration.schema`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from gateway.configuration.quantities import Count, Name, Positive, Shape, Url
from gateway.provider import ENVIRONMENT


class TimeoutsShape(Shape):
    """Seconds: to connect, to the first byte, between two chunks, in all."""

    connect_s: Positive = 5.0
    first_byte_s: Positive = 60.0
    idle_s: Positive = 60.0
    total_s: Positive = 600.0


def _proxy(value: str) -> str:
    if value != ENVIRONMENT and not re.match(r"http://[^/\s]+/?$", value):
        raise ValueError("must be environment, or the proxy's address such as http://user:password@proxy.internal:3128")
    return value.rstrip("/")


class TlsShape(Shape):
    """Files in PEM.  `ca_file` takes the place of the system's authorities."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class ProviderKeyShape(Shape):
    """One of several keys: `key`, or a `file` it is in, or a `command` that prints it."""

    name: Name
    key: str | None = None
    file: str | None = None
    command: list[str] = []  # the program and its arguments; no shell reads them
    ttl_s: Positive | None = None  # a second for a file, five minutes for a command
    timeout_s: Positive = 10.0
    weight: Count = 1
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None


class ProviderShape(Shape):
    """An account at a vendor."""

    preset: str | None = None
    dialect: str | None = None
    base_url: Url | None = None
    api_key: str | None = None
    keys: list[ProviderKeyShape] = []
    headers: dict[str, str] = {}
    options: dict[str, Any] = {}
    prices: str | None = None
    timeouts: TimeoutsShape = TimeoutsShape()
    max_connections: int = Field(512, ge=1)
    connection_age_max_s: Positive = 300.0
    proxy: Annotated[str, AfterValidator(_proxy)] | None = None
    tls: TlsShape = TlsShape()
    retries_max: int = Field(2, ge=0, le=10)
    optional: bool = False
    enabled: bool = True

"""Who is called, by which way and with which proof: nouns, as in `gateway.types`, that imports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY_HERE = "{key}"
"""Stands in a call for a key that is chosen only when it is sent."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, to the first byte, between two chunks, in all."""

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    idle_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """One of the keys of a provider.  What it is stands here, in a file, or in what a command prints."""

    name: str  # in metrics and logs
    value: str = field(default="", repr=False)
    file: str = ""  # looked at every `ttl_s`
    command: tuple[str, ...] = field(default=(), repr=False)  # run every `ttl_s`, by no shell
    ttl_s: float = 1.0
    timeout_s: float = 10.0
    weight: int = 1  # of the calls, beside the others
    requests_per_minute: int | None = None  # of one worker
    tokens_per_minute: int | None = None


ENVIRONMENT = "environment"
"""In place of a proxy's address: as HTTPS_PROXY and its like say."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM, "" for none.  That certificates are verified is no setting."""

    ca_file: str = ""  # authorities believed, in place of the system's
    cert_file: str = ""  # our own certificate and what leads to it
    key_file: str = ""  # its key, where that is not in cert_file
    stamp: tuple[int, ...] = ()  # when they changed


@dataclass(frozen=True, slots=True)
class Provider:
    """Who is called: an account at a vendor.  How it is spoken to is its dialect."""

    id: str
    dialect: str
    base_url: str = ""
    api_key: str = field(default="", repr=False)  # KEY_HERE: one of `keys`
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # sent with every call
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the dialect's quirks as data; maybe a secret
    timeouts: Timeouts = Timeouts()
    max_connections: int = 512
    connection_age_max_s: float = 300.0  # then it is replaced by one to where the name leads by then
    proxy: str = field(default="", repr=False)  # http://[user:password@]host:port, or ENVIRONMENT; "": none
    tls: Tls = Tls()
    retries_max: int = 2
    keys: tuple[ProviderKey, ...] = ()

"""The master among replicas, as the Sentinels that watch it say.

redis+sentinel://user:password@sentinel-1:26379,sentinel-2:26379/NAME/0?sentinel_password=...   (rediss+sentinel: TLS)
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.ledger.link import Address, unavailable

PORT = 26379
ASK_S = 0.25
"""For one Sentinel; the next is asked then."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A master by its name.  Where it is has to be asked: before each new connection, for it may be another by then."""

    name: str
    sentinels: tuple[tuple[str, int], ...]
    login: Address  # how the master is let in at; its host and port mean nothing
    options: dict[str, Any]  # redis-py's for the master
    asking: dict[str, Any]  # redis-py's for the Sentinels

    @classmethod
    def parse(cls, url: str) -> Watched:
        """Raises ValueError for a URL without a name, or that redis-py would not take either."""
        scheme, _, rest = url.partition("://")
        scheme = scheme.removesuffix("+sentinel")
        before, _, query = rest.partition("?")
        login, at, place = before.rpartition("@")
        hosts, _, path = place.partition("/")
        name, _, db = path.partition("/")
        if not name or not hosts:
            raise ValueError(f"needs the master's name: {scheme}+sentinel://HOST:{PORT},HOST:{PORT}/NAME")
        plain = f"{scheme}://{login}{at}master/{db}" + (f"?{query}" if query else "")
        options: dict[str, Any] = dict(parse_url(plain))
        tls = {"ssl": True} if options.pop("connection_class", None) else {}
        told = {key: options.pop(f"sentinel_{key}") for key in ("username", "password") if f"sentinel_{key}" in options}
        certificates = {key: value for key, value in options.items() if key.startswith("ssl_")}
        del options["host"]
        found = tuple((host, int(port or PORT)) for host, _, port in (each.partition(":") for each in hosts.split(",")))
        return cls(name, found, Address.parse(plain), options | tls, told | certificates | tls)

    async def find(self) -> Address:
        """Where it is now.  Raises LedgerUnavailable when no Sentinel knows."""
        asked, found = self._ask(), None
        with suppress(RedisError, OSError):
            found = await asked.discover_master(self.name)
        for each in asked.sentinels:
            await each.aclose()
        if found is None:
            raise unavailable(f"no Sentinel says where {self.name} is")
        return replace(self.login, host=str(found[0]), port=int(found[1]))

    def client(self, timeout_s: float) -> Redis:
        """For what is not the ledger and may take its time."""
        limits: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        found: Redis = self._ask().master_for(self.name, **self.options, **limits)
        return found

    def _ask(self) -> Sentinel:
        limits = {"socket_timeout": ASK_S, "socket_connect_timeout": ASK_S, "retry": Retry(NoBackoff(), 0)}
        return Sentinel(list(self.sentinels), sentinel_kwargs=self.asking | limits)  # type: ignore[no-untyped-call]  # redis-py says no types

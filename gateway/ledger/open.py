"""Which ledger a configuration means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.ledger.base import Ledger
from gateway.ledger.link import Address, Link
from gateway.ledger.redis import RedisLedger
from gateway.ledger.routing import Cluster, Routing, Single
from gateway.ledger.sentinel import Watched
from gateway.ledger.sqlite import SqliteLedger

SQLITE = "sqlite:///"


def open_ledger(
    redis_url: str | None, database_url: str, *, timeout_s: float = 0.045, connect_timeout_s: float = 0.25
) -> Ledger:
    """The ledger in Redis if there is one, else in the SQLite file of the database.  Connects when first used.

    Redis: redis://, rediss://, unix://; a cluster: redis+cluster:// or rediss+cluster:// with one or more hosts,
    comma-separated; a master watched by Sentinels: redis+sentinel:// or rediss+sentinel://, see `Watched`.  No call to
    it takes longer than `timeout_s`.  Raises ValueError for what cannot be a ledger.
    """
    if redis_url:
        return open_redis(redis_url, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, guarded=True)
    if not database_url.startswith(SQLITE) or database_url in {SQLITE, f"{SQLITE}:memory:"}:
        raise ValueError("a ledger needs `redis`, or a `database` that is an SQLite file (sqlite:///./tollgate.db)")
    return SqliteLedger(Path(database_url.removeprefix(SQLITE)))


def open_redis(
    url: str,
    *,
    timeout_s: float = 0.1,
    connect_timeout_s: float = 0.25,
    **options: Any,  # noqa: ANN401 - checked where they are used
) -> RedisLedger:
    """The ledger in this Redis; `options` are RedisLedger's."""
    offsets = _Offsets()

    def link(address: Address, find: Callable[[], Awaitable[Address]] | None = None) -> Link:
        return Link(address, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, learn=offsets, find=find)

    ledger = RedisLedger(_routing(url, link), timeout_s=timeout_s, **options)
    offsets.learn = ledger.learn
    return ledger


def _routing(url: str, link: Callable[..., Link]) -> Routing:
    scheme, _, rest = url.partition("://")
    if scheme.endswith("+sentinel"):
        watched = Watched.parse(url)
        return Single(link(watched.login, watched.find))
    if not scheme.endswith("+cluster"):
        return Single(link(Address.parse(url)))
    scheme = scheme.removesuffix("+cluster")
    login, at, hosts = rest.rpartition("@")
    hosts, slash, path = hosts.partition("/")
    seeds = [Address.parse(f"{scheme}://{login}{at}{host}{slash}{path}") for host in hosts.split(",")]
    return Cluster(seeds, link)


class _Offsets:
    """Links are made before the ledger that learns from them."""

    learn: Callable[[float], None] | None = None

    def __call__(self, offset_s: float) -> None:
        if self.learn is not None:
            self.learn(offset_s)

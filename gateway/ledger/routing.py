"""Which Redis a shard of the ledger lives on: one server, or the nodes of a cluster.

The ledger has few shards, so a cluster's slot map is not needed: the nodes say themselves where a shard is (MOVED), and
that is remembered.  Each node has its own connection and circuit; a slow one delays only its own shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

import hiredis

from gateway.errors import LedgerUnavailable
from gateway.ledger.link import Address, Command, Link, Reply, unavailable

REDIRECTS_MAX = 5


class Routing(Protocol):
    """Carries commands to where a shard is.  Commands of one shard run in the order in which they were called."""

    spans_shards: bool  # whether one script may touch several shards

    def call(self, shard: str, command: Command) -> Awaitable[Reply]:
        """The answer; an error the server gives is a value.  Raises LedgerUnavailable, maybe before it is awaited."""
        ...

    def reset(self, shard: str) -> None:
        """What answers for the shard cannot serve it: look again."""
        ...

    def identity(self, shard: str) -> str | None:
        """The server process that answers for the shard; "" where it does not say, None until it was called."""
        ...

    async def close(self) -> None:
        """Gives the connections back."""
        ...


class Single:
    """Every shard on one server."""

    spans_shards = True

    def __init__(self, link: Link) -> None:
        self._link = link

    def call(self, shard: str, command: Command) -> Awaitable[Reply]:  # noqa: ARG002 - there is only one place
        return self._link.call(command)

    def reset(self, shard: str) -> None:  # noqa: ARG002 - there is only one place
        self._link.reset()

    def identity(self, shard: str) -> str | None:  # noqa: ARG002 - there is only one place
        return self._link.identity

    async def close(self) -> None:
        await self._link.close()


class Cluster:
    """Shards spread over the nodes of a Redis Cluster."""

    spans_shards = False

    def __init__(self, seeds: Sequence[Address], link: Callable[[Address], Link]) -> None:
        self._make = link
        self._seed = seeds[0]
        self._links = {(seed.host, seed.port): link(seed) for seed in seeds}
        self._homes: dict[str, Link] = {}

    async def call(self, shard: str, command: Command) -> Reply:
        link = self._homes.get(shard) or self._any()
        asking = False  # an answer here says nothing of where the shard will be asked for next
        for _ in range(REDIRECTS_MAX):
            try:
                reply = await self._send(link, command, asking=asking)
            except LedgerUnavailable:
                self._homes.pop(shard, None)
                raise
            kind, _, where = str(reply).partition(" ") if isinstance(reply, hiredis.ReplyError) else ("", "", "")
            if kind not in {"MOVED", "ASK"}:
                if not asking:
                    self._homes[shard] = link
                return reply
            asking = kind == "ASK"
            link = self._named(where.partition(" ")[2], link.address)
        raise unavailable(f"shard {shard}: redirected too often")

    async def _send(self, link: Link, command: Command, *, asking: bool) -> Reply:
        if asking:
            allowed = link.call(("ASKING",))
            reply, _ = await asyncio.gather(link.call(command), allowed)
            return reply
        return await link.call(command)

    def reset(self, shard: str) -> None:
        link = self._homes.pop(shard, None)
        if link is not None:
            link.reset()

    def identity(self, shard: str) -> str | None:
        home = self._homes.get(shard)
        return None if home is None else home.identity

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in self._links.values()))

    def _any(self) -> Link:
        """A node that answers, as far as we know; it says who has the shard."""
        return next((link for link in self._links.values() if not link.open), next(iter(self._links.values())))

    def _named(self, where: str, teller: Address) -> Link:
        host, _, port = where.rpartition(":")
        name = (host.strip("[]") or teller.host, int(port))
        link = self._links.get(name)
        if link is None:
            link = self._links[name] = self._make(replace(self._seed, host=name[0], port=name[1]))
        return link

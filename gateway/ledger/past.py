"""What a Redis may have forgotten, and how it is told again.

A Redis that was restarted, emptied or replaced by its replica is known by its epoch: a key of each shard that names the
server process whose data was looked at.  The key is gone when the data is; after a restart with data it names another
process, and the last second may be missing.  Until gateway.rebuild has told it what it should know, it takes no
reservations, and no settlement of ids it does not know.

In a cluster each shard is watched on its own, for it lives on one node.  A server that does not tell its name (INFO is
forbidden to us) is noticed when it was emptied, and not when it lost its last second.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.ledger.base import Line, Reservation
from gateway.ledger.book import SETTLED_KEPT_MS
from gateway.ledger.places import Counters, Take, place
from gateway.ledger.scripts import SCRIPTS
from gateway.ledger.wire import encode

if TYPE_CHECKING:
    from gateway.ledger.redis import RedisLedger

EPOCH = "epoch"
CLAIM_MS = 15_000
AT_ONCE = 1_000

_pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Standing:
    """`blank`: shards that have forgotten everything; `epoch`: another one after anything may have been forgotten."""

    blank: tuple[str, ...]
    epoch: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent on a line's account; `at_ms`: a moment in the slot of a rolling window, else now."""

    line: Line
    at_ms: int
    spent: int


class Past:
    """The past of one RedisLedger.  Every method may raise LedgerUnavailable."""

    def __init__(self, ledger: RedisLedger) -> None:
        self._ledger = ledger
        self._counters = Counters(ledger.stem)

    async def look(self) -> Standing:
        """How it stands with this Redis."""
        ledger = self._ledger
        shards = ledger.all_shards()
        values = await asyncio.gather(*(ledger.call(shard, ("GET", ledger.key(shard, EPOCH))) for shard in shards))
        epochs = ["" if value is None else value.decode() for value in values]
        blank = tuple(shard for shard, epoch in zip(shards, epochs, strict=True) if not epoch)
        servers = [ledger.server(shard) or "" for shard in shards]
        told = list(zip(epochs, servers, strict=True))
        ready = all(epoch and epoch[0] != "!" and epoch.startswith(server) for epoch, server in told)
        return Standing(blank, "/".join(f"{epoch}@{server}" for epoch, server in told), ready)

    async def oldest(self) -> float | None:
        """Unix seconds, on our clock, when the oldest record in the outbox was put there; None: it is empty."""
        ledger = self._ledger
        shards = ledger.all_shards()
        commands = [("XRANGE", ledger.key(shard, "outbox"), "-", "+", "COUNT", 1) for shard in shards]
        found = await asyncio.gather(*(ledger.call(*each) for each in zip(shards, commands, strict=True)))
        ages = [int(entries[0][0].partition(b"-")[0]) / 1000 for entries in found if entries]
        return min(ages) - ledger.offset_s if ages else None

    async def claim(self) -> bool:
        """Whether it is this gateway that restores; again after a while if it has not."""
        ledger = self._ledger
        shard = ledger.all_shards()[0]
        command = ("SET", ledger.key(shard, "restoring"), secrets.token_hex(8), "NX", "PX", CLAIM_MS)
        return await ledger.call(shard, command) is not None

    async def disclaim(self) -> None:
        """Somebody else may restore."""
        ledger = self._ledger
        shard = ledger.all_shards()[0]
        await ledger.call(shard, ("DEL", ledger.key(shard, "restoring")))

    async def restore(self, blank: Sequence[str], spends: Sequence[Spend], ids: Sequence[tuple[str, str]]) -> None:
        """Tells the blank shards what was spent, and which (tenant, id) it holds: settling those changes nothing."""
        ledger = self._ledger
        takes: dict[str, list[Take]] = {shard: [] for shard in blank}
        known: dict[str, list[str]] = {shard: [] for shard in blank}
        for each in spends:
            shard = ledger.shard(each.line.account.tenant)
            if shard in takes:
                takes[shard] += self._takes([each.line], each.at_ms, each.spent)
        for tenant, id_ in ids:
            for shard in {ledger.shard(tenant), *(blank if ledger.split else ())}:
                if shard in known:
                    known[shard].append(id_)
        for shard in blank:
            await self._restore(shard, takes[shard], known[shard])
        token = f"!{secrets.token_hex(8)}"
        await asyncio.gather(*(ledger.call(shard, ("SET", ledger.key(shard, EPOCH), token)) for shard in blank))

    async def adopt(self, reservation: Reservation) -> None:
        """Takes a hold back that may have been forgotten; its request is under way."""
        ledger = self._ledger
        at_ms = int(reservation.draft.at * 1000)
        draft = encode(reservation.draft)
        for shard, lines in ledger.parts(reservation):
            takes = self._takes(lines, at_ms)
            args = (int(reservation.ttl_s * 1000), reservation.id, _pack(takes), draft)
            await ledger.run(SCRIPTS.adopt, shard, ledger.hold_keys(shard, reservation.id)[:2], args)
            draft = b""

    async def admit(self) -> None:
        """Everything has been told: reservations are taken again."""
        ledger = self._ledger
        token = secrets.token_hex(8)
        calls = [
            ledger.run(SCRIPTS.admit, shard, (ledger.key(shard, EPOCH),), (ledger.server(shard) or "", token))
            for shard in ledger.all_shards()
        ]
        await asyncio.gather(*calls)

    async def _restore(self, shard: str, takes: list[Take], ids: list[str]) -> None:
        ledger = self._ledger
        for at in range(0, max(len(takes), len(ids)), AT_ONCE):
            some, named = takes[at : at + AT_ONCE], ids[at : at + AT_ONCE]
            args = (_pack(some), _pack(named), ledger.key(shard, "hold:"), SETTLED_KEPT_MS)
            await ledger.run(SCRIPTS.restore, shard, (ledger.key(shard, EPOCH),), args)

    def _takes(self, lines: Sequence[Line], at_ms: int, spent: int | None = None) -> list[Take]:
        takes = place(lines, at_ms, self._counters).takes(at_ms)
        return takes if spent is None else [msgspec.structs.replace(each, amount=spent) for each in takes]

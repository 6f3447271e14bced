"""The ledger in Redis: for several gateways on several machines.

Each verb is one Lua script on the server's clock.  A tenant's keys share a hash tag with those of other tenants of its
shard, and each shard has its holds and its outbox, so a shard lives on one node.  Accounts no tenant owns have a shard
of their own.  On one server a reservation is one script whatever it touches; on a cluster it is one script for each
shard, and the refusal of one releases those before it.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

import hiredis
import msgspec

from gateway.errors import Conflict, LedgerUnavailable
from gateway.ledger.base import Balance, Line, Reservation, Settlement, Spent
from gateway.ledger.book import PRESUMED_KEPT_MS, RELEASED_KEPT_MS, SETTLED_KEPT_MS
from gateway.ledger.link import RETRY_MAX_S, RETRY_MIN_S, Command, Reply, unavailable
from gateway.ledger.past import EPOCH, Past
from gateway.ledger.places import Counters, place
from gateway.ledger.replies import age, check, pairs, refused_by, shares, used
from gateway.ledger.routing import Routing
from gateway.ledger.scripts import SCRIPTS, Script
from gateway.ledger.wire import encode, readable
from gateway.types import Account, Record

SHARDS = 16
SHARED = "all"  # the shard of accounts no tenant owns
EXPIRED_AT_ONCE = 100
WINDOW_TRIES = 3
DOUBTS_MAX = 10_000

OK, MOVED, FULL, USED = range(4)  # what reserve.v1.lua answers

Parts: TypeAlias = list[tuple[str, Sequence[Line]]]
"""Shards with their lines of the reservation."""

_SETTLEMENTS = {each.value.encode(): each for each in Settlement}

_pack = msgspec.msgpack.Encoder().encode


class RedisLedger:
    """See gateway.ledger.base.

    `wall` is this machine's clock; only windows are computed from it, corrected by what the server's clock showed.
    `clock`, for tests, takes the place of the server's clock.  `split` makes one server act like a cluster.  With
    `guarded`, reservations are made only in a Redis that remembers everything: see gateway.ledger.past.  A reservation
    takes at most `timeout_s`, however many shards it touches.
    """

    def __init__(
        self,
        routing: Routing,
        *,
        prefix: str = "tollgate:",
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
        split: bool = False,
        guarded: bool = False,
        timeout_s: float = 0.045,
    ) -> None:
        self._routing = routing
        self._guarded = guarded
        self._timeout_s = timeout_s
        self._prefix = prefix
        self._clock = clock
        self._wall = clock or wall
        self._offset_s = 0.0
        self._split = split or not routing.spans_shards
        self._counters = Counters(self.stem)
        self._shards: dict[str, str] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self.past = Past(self)

    @property
    def offset_s(self) -> float:
        """How far the server's clock is ahead of ours."""
        return self._offset_s

    @property
    def split(self) -> bool:
        """Whether a reservation may be spread over shards."""
        return self._split

    @property
    def guarded(self) -> bool:
        """Whether a Redis that has forgotten something is noticed."""
        return self._guarded

    def learn(self, offset_s: float) -> None:
        """The server's clock is this much ahead of ours."""
        if self._clock is None:
            self._offset_s = offset_s

    # The verbs

    async def reserve(self, reservation: Reservation) -> list[Balance]:
        parts = self.parts(reservation)
        if len(parts) == 1:
            return (await self._reserve_all(parts, reservation))[0]
        try:
            async with asyncio.timeout(self._timeout_s):
                return _in_order(reservation.lines, parts, await self._reserve_all(parts, reservation))
        except TimeoutError:
            raise unavailable("its shards together were too slow") from None

    async def _reserve_all(self, parts: Parts, reservation: Reservation) -> list[list[Balance]]:
        draft = encode(reservation.draft)
        found: list[list[Balance]] = []
        tried: list[str] = []
        try:
            for shard, lines in parts:
                tried.append(shard)
                found.append(await self._reserve(shard, reservation, lines, draft))
                draft = b""  # one record for each request, however many shards it touches
        except RefusedError as refused:
            for shard in tried[:-1]:
                await self._free(shard, reservation)
            raise refused.reason from None
        except BaseException:
            for shard in tried:
                self._release_later(shard, reservation)
            raise
        return found

    async def extend(self, reservation: Reservation, ttl_s: float) -> bool:
        calls = [
            self.run(SCRIPTS.extend, shard, self.hold_keys(shard, reservation.id), (_ms(ttl_s), reservation.id))
            for shard, _ in self.parts(reservation)
        ]
        return all(await _together(calls))

    async def settle(self, reservation: Reservation, spent: Spent, record: Record) -> Settlement:
        written = encode(record)
        calls = [
            self._settle(shard, reservation, lines, spent, b"" if at else written)
            for at, (shard, lines) in enumerate(self.parts(reservation))
        ]
        found: Settlement = (await _together(calls))[0]
        return found

    async def release(self, reservation: Reservation) -> None:
        await _together([self._release(shard, reservation) for shard, _ in self.parts(reservation)])

    async def expire(self) -> int:
        return sum(await _some([self._expire(shard) for shard in self.all_shards()]))

    async def balances(self, lines: Sequence[Line]) -> list[Balance]:
        parts = self._grouped(lines, self.shard(""))
        return _in_order(lines, parts, [await self._balances(shard, own) for shard, own in parts])

    async def outbox(self, count: int) -> list[tuple[str, Record]]:
        each = await _some([self._waiting(shard, count) for shard in self.all_shards()])
        oldest = sorted((entry for entries in each for entry in entries), key=lambda entry: entry[0])[:count]
        return await readable([(f"{shard}/{entry_id}", record) for _, shard, entry_id, record in oldest])

    async def ack(self, tokens: Sequence[str]) -> None:
        by_shard: dict[str, list[str]] = {}
        for token in tokens:
            shard, _, entry_id = token.partition("/")
            by_shard.setdefault(shard, []).append(entry_id)
        calls = [self.call(shard, ("XDEL", self.key(shard, "outbox"), *ids)) for shard, ids in by_shard.items()]
        await _together(calls)

    async def ping(self) -> None:
        shards = self.all_shards() if self._split else [SHARED]
        await _together([self._balances(shard, []) for shard in shards])

    async def close(self) -> None:
        for task in self._releasing:
            task.cancel()
        await asyncio.gather(*self._releasing, return_exceptions=True)
        await self._routing.close()

    # One shard's share of a verb

    async def _reserve(
        self, shard: str, reservation: Reservation, lines: Sequence[Line], draft: bytes
    ) -> list[Balance]:
        server = self.server(shard)
        if server is None:
            await self.call(shard, ("GET", self.key(shard, EPOCH)))
            server = self.server(shard) or ""
        for _ in range(WINDOW_TRIES):
            placed = place(lines, self.now_ms(), self._counters)
            checks = [check(line, number) for line, _, number in placed.of_line]
            asked = _pack((placed.places, checks))
            args = (placed.start, placed.end, _ms(reservation.ttl_s), reservation.id, asked, draft, server)
            hold, holds, _ = self.hold_keys(shard, reservation.id)
            reply = await self.run(SCRIPTS.reserve, shard, (hold, holds, self.key(shard, EPOCH)), args)
            match reply[0]:
                case 0:
                    return placed.balances(pairs(reply))
                case 1:
                    self._moved(reply)
                case 2:
                    raise RefusedError(refused_by(placed, reply))
                case 4:
                    raise RefusedError(unavailable("it was restarted; what it may have forgotten is being restored"))
                case _:
                    raise RefusedError(Conflict(f"Request id {reservation.id} is already in the ledger."))
        raise unavailable("the server's clock and ours disagree about the window")

    async def _settle(
        self, shard: str, reservation: Reservation, lines: Sequence[Line], spent: Spent, record: bytes
    ) -> Settlement:
        keys = self.hold_keys(shard, reservation.id)
        amounts = (used(spent), SETTLED_KEPT_MS)
        parts = shares(spent)
        reply = await self.run(SCRIPTS.settle, shard, keys, (reservation.id, *amounts, record, parts))
        if reply == b"unknown":
            at_ms = _ms(reservation.draft.at)
            takes = place(lines, at_ms, self._counters).takes(at_ms)
            args = (*amounts, _pack(takes), record, parts, self.server(shard) or "")
            reply = await self.run(SCRIPTS.book_unknown, shard, (keys[0], keys[2], self.key(shard, EPOCH)), args)
            if reply == b"blank":
                raise unavailable("it has forgotten everything; that is being restored")
        return _SETTLEMENTS[reply]

    async def _release(self, shard: str, reservation: Reservation) -> None:
        keys = self.hold_keys(shard, reservation.id)[:2]
        await self.run(SCRIPTS.release, shard, keys, (reservation.id, RELEASED_KEPT_MS))

    async def _expire(self, shard: str) -> int:
        keys = (self.key(shard, "holds"), self.key(shard, "outbox"))
        count = 0
        while True:
            args = (self.key(shard, "hold:"), EXPIRED_AT_ONCE, PRESUMED_KEPT_MS)
            booked: int = await self.run(SCRIPTS.expire, shard, keys, args)
            count += booked
            if booked < EXPIRED_AT_ONCE:
                return count

    async def _balances(self, shard: str, lines: Sequence[Line]) -> list[Balance]:
        for _ in range(WINDOW_TRIES):
            placed = place(lines, self.now_ms(), self._counters)
            args = (placed.start, placed.end, _pack(placed.places))
            reply = await self.run(SCRIPTS.balances, shard, (self.key(shard, "holds"),), args)
            if reply[0] == OK:
                return placed.balances(pairs(reply))
            self._moved(reply)
        raise unavailable("the server's clock and ours disagree about the window")

    async def _waiting(self, shard: str, count: int) -> list[tuple[tuple[int, int], str, str, bytes]]:
        entries = await self.call(shard, ("XRANGE", self.key(shard, "outbox"), "-", "+", "COUNT", count))
        return [(age(entry_id), shard, entry_id.decode(), fields[1]) for entry_id, fields in entries]

    # Releases of what nobody will use

    async def _free(self, shard: str, reservation: Reservation) -> None:
        try:
            await self._release(shard, reservation)
        except (LedgerUnavailable, asyncio.CancelledError) as error:
            self._release_later(shard, reservation)
            if isinstance(error, asyncio.CancelledError):
                raise

    def _release_later(self, shard: str, reservation: Reservation) -> None:
        """Frees what may have been reserved, behind its own reserve or when the connection is back.

        Past its expiry the hold is presumed spend, and too many doubts at once are left to that.
        """
        if len(self._releasing) >= DOUBTS_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._release_until(shard, reservation))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release_until(self, shard: str, reservation: Reservation) -> None:
        loop = asyncio.get_running_loop()
        ends, pause_s = loop.time() + reservation.ttl_s, RETRY_MIN_S
        while loop.time() < ends:
            try:
                await self._release(shard, reservation)
            except LedgerUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                return

    # Where things are

    def server(self, shard: str) -> str | None:
        """Who has to remember: the server process by its name, "-" where nobody asks, None where that is not known."""
        return self._routing.identity(shard) if self._guarded else "-"

    def parts(self, reservation: Reservation) -> Parts:
        """Shards with their lines; the tenant's own is first and has the record."""
        return self._grouped(reservation.lines, self.shard(reservation.tenant))

    def _grouped(self, lines: Sequence[Line], first: str) -> Parts:
        if not self._split:
            return [(first, lines)]
        groups: dict[str, list[Line]] = {first: []}
        for line in lines:
            groups.setdefault(self.shard(line.account.tenant), []).append(line)
        return list(groups.items())

    def shard(self, tenant: str) -> str:
        if not tenant:
            return SHARED
        shard = self._shards.get(tenant)
        if shard is None:
            shard = self._shards[tenant] = f"t{zlib.crc32(tenant.encode()) % SHARDS:02d}"
        return shard

    def all_shards(self) -> list[str]:
        return [SHARED, *(f"t{number:02d}" for number in range(SHARDS))]

    def key(self, shard: str, name: str) -> str:
        return f"{self._prefix}{{{shard}}}:{name}"

    def stem(self, account: Account) -> str:
        return self.key(self.shard(account.tenant), "")

    def hold_keys(self, shard: str, id_: str) -> tuple[str, str, str]:
        stem = f"{self._prefix}{{{shard}}}:"
        return f"{stem}hold:{id_}", f"{stem}holds", f"{stem}outbox"

    # Time, and the way there

    def now_ms(self) -> int:
        return _ms(self._wall() + self._offset_s)

    def _moved(self, reply: Reply) -> None:
        self.learn(reply[1] / 1000 - self._wall())

    async def run(self, script: Script, shard: str, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Reply:
        now = "" if self._clock is None else _ms(self._clock())
        command = ("EVALSHA", script.sha, len(keys), *keys, now, *args)
        reply = await self._routing.call(shard, command)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):  # the server was restarted
            reply = await self._routing.call(shard, ("EVAL", script.text, *command[2:]))
        return self._accepted(shard, reply)

    async def call(self, shard: str, command: Command) -> Reply:
        return self._accepted(shard, await self._routing.call(shard, command))

    def _accepted(self, shard: str, reply: Reply) -> Reply:
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        message = str(reply)
        if "READONLY" in message or "MASTERDOWN" in message:  # within a script older servers put it further back
            self._routing.reset(shard)
        raise unavailable(message)


class RefusedError(Exception):
    """A shard refused, having changed nothing; `reason` is what the caller is told."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def _in_order(lines: Sequence[Line], parts: Parts, found: Sequence[Sequence[Balance]]) -> list[Balance]:
    """The balances of each part's lines, in the order of all lines."""
    of_line: dict[int, Balance] = {}
    for (_, own), balances in zip(parts, found, strict=True):
        of_line.update(zip(map(id, own), balances, strict=True))
    return [of_line[id(line)] for line in lines]


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


async def _together(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The answers of all; one call is not worth a task."""
    return [await calls[0]] if len(calls) == 1 else list(await asyncio.gather(*calls))


async def _some(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The answers of the shards that can be reached; raises when none can."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    reached = [answer for answer in answers if not isinstance(answer, BaseException)]
    for answer in answers:
        if isinstance(answer, BaseException) and (not reached or not isinstance(answer, LedgerUnavailable)):
            raise answer
    return reached

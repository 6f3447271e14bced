"""One pipelined connection to one Redis, behind a circuit breaker.

Calls of one tick of the event loop share one write; answers come in the order of the calls.  Redis-py spends more on
one command than the gateway may spend on a request, so only its URL parsing is used, and hiredis for the protocol.

Nobody waits longer than `timeout_s` for an answer.  When one is overdue the circuit opens: calls fail at once until it
comes after all, or a new connection has been made in the background.  No request ever pays for a probe.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import hiredis
import msgspec
import structlog
from redis.asyncio.connection import SSLConnection, parse_url

from gateway.errors import LedgerUnavailable

log = structlog.get_logger(__name__)

Reply: TypeAlias = Any
Command: TypeAlias = tuple[str | bytes | int, ...]

MESSAGE = "The spend ledger does not answer, so nothing can be set aside for this request. Try again shortly."
FORGETFUL = "this Redis may evict what was spent, so caps can leak: set maxmemory-policy noeviction"
ASKED = ("server", "memory")
"""Of a Redis, once for each connection."""
RETRY_MIN_S, RETRY_MAX_S = 0.05, 1.0
UNLOOKED_S = 0.002  # an answer may already be in the socket when the timer fires: look once more before giving up


def unavailable(why: str) -> LedgerUnavailable:
    """The error clients see; `why` is for the log, as its cause."""
    error = LedgerUnavailable(MESSAGE, retry_after_s=1.0)
    error.__cause__ = ConnectionError(why)
    return error


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is, and how to be let in.  From a URL: redis://, rediss:// or unix://."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = ""
    db: int = 0
    tls: ssl.SSLContext | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ValueError for a URL that redis-py would not take either."""
        found: dict[str, Any] = dict(parse_url(url))
        return cls(
            host=found.get("host") or "localhost",
            port=found.get("port") or 6379,
            path=found.get("path", ""),
            username=found.get("username") or "",
            password=found.get("password") or "",
            db=found.get("db", 0),
            tls=_tls(found) if found.get("connection_class") is SSLConnection else None,
        )

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    @property
    def greeting(self) -> list[Command]:
        """What is said first on a connection; the answer to TIME is the last."""
        login = (self.username, self.password) if self.username else (self.password,)
        said: list[Command] = [("AUTH", *login)] if self.password else []
        if self.db:
            said.append(("SELECT", self.db))
        return [*said, ("TIME",)]


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    return context


def _accepted(address: Address, reply: Reply) -> Reply:
    if isinstance(reply, hiredis.ReplyError):
        raise unavailable(f"{address}: {reply}")
    return reply


def _run_id(info: Reply) -> str:
    """The random name a Redis has from its start to its end; "" where we may not ask."""
    found = re.search(rb"^run_id:(\w+)", info, re.MULTILINE) if isinstance(info, bytes) else None
    return "" if found is None else found[1].decode()


def _evicting(info: Reply) -> str:
    """How a Redis makes room when it is full, where it drops keys for that; "" where it does not, or we may not ask."""
    found = (
        dict(re.findall(rb"^(maxmemory|maxmemory_policy):(\S+)", info, re.MULTILINE)) if isinstance(info, bytes) else {}
    )
    policy: bytes = found.get(b"maxmemory_policy", b"noeviction")
    return "" if policy == b"noeviction" or found.get(b"maxmemory") == b"0" else policy.decode()


class Call(msgspec.Struct, eq=False):
    """A command and who waits for its answer."""

    command: bytes
    answer: asyncio.Future[Reply]
    due: float  # on the event loop's clock


class Pipe(asyncio.Protocol):
    """The bytes of one connection: what was written waits for its answer, in order."""

    def __init__(self, lost: Callable[[Pipe], None], heard: Callable[[], None]) -> None:
        self.waiting: deque[Call] = deque()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._lost = lost
        self._heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def send(self, calls: list[Call]) -> None:
        """Writes the calls whose callers still wait; one that was cancelled before is never sent."""
        wanted = [call for call in calls if not call.answer.done()]
        self.waiting.extend(wanted)
        if self._transport is not None and wanted:
            self._transport.write(b"".join([call.command for call in wanted]))

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self.waiting
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                answer = waiting.popleft().answer
                if not answer.done():
                    answer.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abort()
            return
        self._heard()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name asyncio gives it
        self._transport = None
        self._lost(self)

    def abort(self) -> None:
        """Ends the connection now; `lost` is told."""
        if self._transport is not None:
            self._transport.abort()


class Link:
    """Calls to one Redis.  `learn` is told the offset of its clock to ours, in seconds.

    With `find`, where it is is asked before each connection; `address` is the last answer.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        learn: Callable[[float], None],
        find: Callable[[], Awaitable[Address]] | None = None,
    ) -> None:
        self.address = address
        self._find = find
        self.open = False  # the circuit: calls fail at once
        self.identity: str | None = None  # of the server process that answers last; "" where it does not say
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._learn = learn
        self._unsent: list[Call] = []
        self._pipe: Pipe | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looked_again = False
        self._stalled_since: float | None = None
        self._closed = False

    def call(self, command: Command) -> asyncio.Future[Reply]:
        """The answer, or hiredis.ReplyError as a value.  Raises LedgerUnavailable at once or within `timeout_s`."""
        if self.open or self._closed:
            raise unavailable(f"{self.address}: the circuit is open")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()
        if not self._unsent:
            loop.call_soon(self._flush)
        due = loop.time() + self._timeout_s
        self._unsent.append(Call(hiredis.pack_command(command), answer, due))  # type: ignore[arg-type]  # its stub lacks int
        if self._timer is None:
            self._timer = loop.call_at(due, self._check)
        return answer

    def reset(self) -> None:
        """Connects anew: what answers here is no longer what we look for."""
        if self._pipe is not None:
            self._pipe.abort()

    async def close(self) -> None:
        """Ends the connection; whoever waits is told."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if self._pipe is not None:
            self._pipe.abort()
            self._drop(self._pipe)
        self._fail_unsent("closed")

    def _flush(self) -> None:
        if self._pipe is not None:
            calls, self._unsent = self._unsent, []
            # An event loop that was busy until now is not a slow Redis; its own idea of the time may be old.
            due = max(asyncio.get_running_loop().time(), time.monotonic()) + self._timeout_s
            for call in calls:
                call.due = due
            self._pipe.send(calls)
        elif self._unsent:
            self._connect()

    def _connect(self) -> None:
        if self._connecting is None and not self._closed:
            self._connecting = asyncio.get_running_loop().create_task(self._keep_connecting())

    async def _keep_connecting(self) -> None:
        pause_s = RETRY_MIN_S
        while True:
            try:
                if self._find is not None:
                    self.address = await self._find()
                async with asyncio.timeout(self._connect_timeout_s):
                    self._pipe = await self._connected()
            except (OSError, LedgerUnavailable) as error:
                self._break(f"cannot connect: {error.__cause__ or error}")
            else:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)
        self._connecting = None
        self._mend()
        self._flush()

    async def _connected(self) -> Pipe:
        loop, address = asyncio.get_running_loop(), self.address
        pipe = Pipe(self._drop, self._mend)
        if address.path:
            await loop.create_unix_connection(lambda: pipe, address.path)
        else:
            await loop.create_connection(lambda: pipe, address.host, address.port, ssl=address.tls)
        try:
            calls = [Call(hiredis.pack_command(each), loop.create_future(), 0.0) for each in address.greeting]  # type: ignore[arg-type]  # its stub lacks int
            facts = [Call(hiredis.pack_command(("INFO", about)), loop.create_future(), 0.0) for about in ASKED]  # type: ignore[arg-type]  # its stub lacks str
            pipe.send([*calls, *facts])
            answers = [_accepted(address, await call.answer) for call in calls]
            server, memory = [await each.answer for each in facts]
            self.identity = _run_id(server)
            if policy := _evicting(memory):
                log.error(FORGETFUL, redis=str(address), maxmemory_policy=policy)
        except BaseException:
            pipe.abort()
            raise
        seconds, micros = answers[-1]
        self._learn(int(seconds) + int(micros) / 1e6 - time.time())
        return pipe

    def _drop(self, pipe: Pipe) -> None:
        """The connection is gone: nobody knows what became of what was sent on it."""
        waiting, pipe.waiting = pipe.waiting, deque()
        for call in waiting:
            if not call.answer.done():
                call.answer.set_exception(unavailable(f"{self.address}: connection lost"))
        if pipe is self._pipe:
            self._pipe = None
            self._stalled_since = None
            if not self._closed:
                self._break("connection lost")
                self._connect()

    def _check(self) -> None:
        """Fires when the oldest call is due."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, oldest = loop.time(), self._oldest()
        if oldest is None or now < oldest.due or not self._looked_again:
            self._looked_again = oldest is not None and now >= oldest.due
            if oldest is not None:
                self._timer = loop.call_at(max(oldest.due, now + UNLOOKED_S), self._check)
            return
        self._looked_again = False
        self._break(f"no answer within {self._timeout_s} s")
        if self._pipe is None:
            return
        if self._stalled_since is None:
            self._stalled_since = now
        elif now - self._stalled_since >= self._connect_timeout_s:
            self._pipe.abort()
            return
        self._timer = loop.call_later(self._connect_timeout_s, self._check)

    def _oldest(self) -> Call | None:
        if self._pipe is not None and self._pipe.waiting:
            return self._pipe.waiting[0]
        return self._unsent[0] if self._unsent else None

    def _break(self, why: str) -> None:
        """Opens the circuit: whoever waits is told now, whoever comes is told at once."""
        if not self.open:
            self.open = True
            log.warning("ledger circuit open", redis=str(self.address), why=why)
        self._fail_unsent(why)
        for call in self._pipe.waiting if self._pipe is not None else ():
            if not call.answer.done():
                call.answer.set_exception(unavailable(f"{self.address}: {why}"))

    def _fail_unsent(self, why: str) -> None:
        unsent, self._unsent = self._unsent, []
        for call in unsent:
            if not call.answer.done():
                call.answer.set_exception(unavailable(f"{self.address}: {why}"))

    def _mend(self) -> None:
        """An answer came: the circuit is closed."""
        self._stalled_since = None
        if self.open and self._pipe is not None:
            self.open = False
            log.info("ledger circuit closed", redis=str(self.address))

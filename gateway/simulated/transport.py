"""Plays a simulated reply on a clock: inside the process as an httpx transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import httpx

from gateway.simulated.batches import BATCH_S, Batches
from gateway.simulated.reply import JSON, Fault, InputTokens, Reply, respond
from gateway.simulated.script import Place
from gateway.tokens import simulated_input_tokens

Clock: TypeAlias = Callable[[], float]
Sleep: TypeAlias = Callable[[float], Awaitable[None]]

FOREVER_S = 86_400.0
PATIENCE = 16
"""Pieces sent without giving other requests a turn, when no time passes between them."""


class Player:
    """Waits until each part of a reply is due."""

    def __init__(self, clock: Clock, sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._began = clock()

    async def until(self, at_s: float) -> None:
        """Returns `at_s` seconds after the request came; at once if that is past."""
        left = at_s - (self._clock() - self._began)
        if left > 0:
            await self._sleep(left)

    async def stall(self) -> None:
        """Returns when every patience is over."""
        await self._sleep(FOREVER_S)

    async def pause(self) -> None:
        """Lets others have a turn."""
        await self._sleep(0)


class Body(httpx.AsyncByteStream):
    """The body of a reply, piece by piece.  `sent` counts the pieces; `complete` says whether all of them were read."""

    def __init__(self, reply: Reply, player: Player, closed: Callable[[Body], None]) -> None:
        self._reply = reply
        self._player = player
        self._closed: Callable[[Body], None] | None = closed
        self.sent = 0
        self.complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at_s, piece in self._reply.pieces:
            await self._player.until(at_s)
            if piece is Fault.STALL:
                await self._player.stall()
            if isinstance(piece, Fault):
                raise httpx.ReadError("The simulated provider reset the connection")
            self.sent += 1
            yield piece
            if self.sent % PATIENCE == 0:
                await self._player.pause()
        self.complete = True

    async def aclose(self) -> None:
        if self._closed is not None:
            self._closed(self)
            self._closed = None


class SimulatedTransport(httpx.AsyncBaseTransport):
    """A provider inside the process.  Any host; POST to .../chat/completions or .../messages, files and batches.

    Raises what a network would: httpx.ConnectError, httpx.ReadError.  `called`, `completed` and `abandoned` count
    calls, replies read to their end, and replies closed before it.
    """

    def __init__(
        self,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        now: Clock = time.time,
        input_tokens: InputTokens = simulated_input_tokens,
        batch_s: float = BATCH_S,
    ) -> None:
        self._clock, self._sleep, self._now = clock, sleep, now
        self._input_tokens = input_tokens
        self.batches = Batches(now, input_tokens, batch_s)
        self.called = self.completed = self.abandoned = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The status and headers when they are due; the body follows through the stream."""
        self.called += 1
        body = await request.aread()
        kind = request.headers.get("content-type", "")
        if (said := self.batches.answer(request.method, request.url.path, kind, body)) is not None:
            self.completed += 1
            return httpx.Response(said[0], headers=JSON, content=said[1], request=request)
        player = Player(self._clock, self._sleep)
        reply = respond(request.url.path, body, int(self._now()), self._input_tokens)
        if reply.instead is Place.CONNECT:
            raise httpx.ConnectError("The simulated provider refused the connection", request=request)
        await player.until(reply.starts_s)
        if reply.instead is Place.BEFORE:
            if reply.fault is Fault.STALL:
                await player.stall()
            raise httpx.ReadError("The simulated provider reset the connection", request=request)
        return httpx.Response(
            reply.status, headers=reply.headers, stream=Body(reply, player, self._over), request=request
        )

    def _over(self, body: Body) -> None:
        if body.complete:
            self.completed += 1
        else:
            self.abandoned += 1

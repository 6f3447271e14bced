"""`Idempotency-Key`: the same request with the same key of the same tenant is served, and charged, once.

Who asks again while it is being served follows the same reply, here or in another process; later the stored reply
is sent again.  It is served to its end even if its client leaves, for that client is the one who will ask again.  A
request that fails is forgotten: the next one with its key is served anew.  Bodies above `BODY_BYTES_MAX` are not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from gateway.api.reply import Headers, Reply
from gateway.errors import Conflict, GatewayError, InternalError, InvalidRequest, Unavailable
from gateway.pipeline import Send
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.replies import LEASE_S, Claim, Replies, Stored
from gateway.types import Outcome, Request

BODY_BYTES_MAX = 8 * 1024 * 1024
KEY_CHARS_MAX = 255
ASK_AGAIN_S = 0.2
REPLAYED = (b"x-tollgate-replayed", b"true")

Run = Callable[[Send], Awaitable[Outcome]]

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Recording:
    """A reply while it is made; any number of clients follow it."""

    fingerprint: str
    status: int = 0
    headers: Headers = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    whole: bool = False
    ended: bool = False  # whole, and kept: who has the end of it will find it again
    error: GatewayError | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, status: int, headers: Headers) -> None:
        """See Send."""
        self.status, self.headers = status, headers
        self._tell()

    async def chunk(self, data: bytes) -> None:
        """See Send."""
        self.chunks.append(data)
        self._tell()

    async def end(self, data: bytes) -> None:
        """See Send."""
        self.chunks.append(data)
        self.whole = True

    def done(self) -> None:
        """It is kept, or cannot be."""
        self.ended = True
        self._tell()

    def failed(self, error: GatewayError) -> None:
        """Nothing, or nothing more, will come."""
        self.error = error
        self._tell()

    async def follow(self, reply: Reply, added: Headers) -> None:
        """Sends everything, from the beginning, as it comes.  Raises the error it ends with."""
        sent = 0
        while True:
            news = self._news
            if self.status and not reply.started:
                await reply.start(self.status, [*self.headers, *added])
            while sent < len(self.chunks) - (self.whole and not self.ended):
                data, sent = self.chunks[sent], sent + 1
                await (reply.end(data) if self.ended and sent == len(self.chunks) else reply.chunk(data))
            if self.ended and sent == len(self.chunks):
                return
            if self.error is not None:
                raise self.error
            await news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Once:
    """One per process."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self._running: dict[str, Recording] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request, run: Run, reply: Reply) -> None:
        """Answers `request`, which has a key, with `run` or what it answered before.

        Raises InvalidRequest, Conflict, Unavailable when nobody can know whether it was served, and the run's own.
        """
        name = request.headers["idempotency-key"]
        if not 0 < len(name) <= KEY_CHARS_MAX:
            raise InvalidRequest(f"An Idempotency-Key has 1 to {KEY_CHARS_MAX} characters.", param="idempotency-key")
        id_ = _digest(request.key.tenant, request.format, name)
        fingerprint = _digest(request.raw)
        added = [REPLAYED]
        while (recording := self._running.get(id_)) is None:
            try:
                found = await self._replies.claim(id_, fingerprint, request.id)
            except DatabaseUnavailable as error:
                raise Unavailable("Idempotency-Keys cannot be looked up; try again.", retry_after_s=1.0) from error
            if isinstance(found, Stored):
                headers = [header for header in found.headers if header[0] != b"content-length"]
                return await reply.whole(found.status, [*headers, REPLAYED], found.body)
            if found is Claim.OURS:
                added = []
                recording = self._running[id_] = Recording(fingerprint)
                task = asyncio.get_running_loop().create_task(self._serve(id_, request.id, recording, run))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                break
            await asyncio.sleep(ASK_AGAIN_S)
        if recording.fingerprint != fingerprint:
            raise Conflict("This Idempotency-Key was used for another request.", param="idempotency-key")
        return await recording.follow(reply, added)

    async def stop(self, within_s: float) -> None:
        """Waits for what is being served, also for clients that have left."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)

    async def _serve(self, id_: str, owner: str, recording: Recording, run: Run) -> None:
        lease = asyncio.get_running_loop().create_task(self._keep(id_, owner))
        outcome: Outcome | None = None
        failure: GatewayError = InternalError(
            "Something went wrong in the gateway; the request id finds it in the log."
        )
        try:
            outcome = await run(recording)
        except GatewayError as error:
            failure = error
        except Exception:
            log.exception("bug", request_id=owner)
        finally:
            lease.cancel()
            with contextlib.suppress(DatabaseUnavailable):  # the lease ends by itself
                await self._remember(id_, owner, recording, outcome)
            del self._running[id_]  # before its clients know: who asks again is not to meet it
            if recording.whole:
                recording.done()
            else:
                recording.failed(failure)

    async def _remember(self, id_: str, owner: str, recording: Recording, outcome: Outcome | None) -> None:
        body = b"".join(recording.chunks)
        if outcome is Outcome.OK and len(body) <= BODY_BYTES_MAX:
            await self._replies.finish(id_, owner, Stored(recording.status, recording.headers, body))
        else:
            await self._replies.forget(id_, owner)

    async def _keep(self, id_: str, owner: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with contextlib.suppress(DatabaseUnavailable):
                await self._replies.keep(id_, owner)


def _digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(b"%d:" % len(data) + data)
    return found.hexdigest()

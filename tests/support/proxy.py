"""A TCP proxy that can lose what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on a port of its own and carries bytes to `port` and back."""

    def __init__(self, port: int) -> None:
        self.swallow_replies = False
        self.delay_s = 0.0  # of each chunk on its way back
        self.writes = 0  # chunks that went towards the server
        self.target = port  # of connections made from now on
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for source, target, upward in ((reader, back, True), (there, writer, False)):
            task = asyncio.create_task(self._carry(source, target, upward=upward))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, upward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 20):
                self.writes += upward
                if not upward and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if upward or not self.swallow_replies:
                    target.write(data)
        target.transport.abort()

"""The value of one key: as stated, as a file says, or as a command prints.  It is in no log and no error.

A value is read again before it is over, in the background; the old one serves meanwhile, and for as long as it cannot
be read again.  One that a provider has refused is read at once.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.errors import UpstreamDenied
from gateway.provider import ProviderKey

BYTES_MAX = 16 * 1024
EARLY = 0.8  # of its time, after which a value is read again
AGAIN_S = 1.0
"""After a reading that failed."""

log = structlog.get_logger()


class Unreadable(Exception):
    """A value that is not to be had; says why without a word of what was read."""


class Secret:
    """See the module.  Used by one event loop."""

    def __init__(self, provider: str, key: ProviderKey, now: Callable[[], float]) -> None:
        self._provider, self._key, self._now = provider, key, now
        self._value = key.value
        self._due = float("inf") if key.value else 0.0  # when it is over
        self._early = self._due
        self._reading: asyncio.Task[None] | None = None

    async def value(self) -> str:
        """What to send.  Raises UpstreamDenied where it has never been read."""
        now = self._now()
        if now >= self._early:
            reading = self._read()
            if now >= self._due:
                await asyncio.shield(reading)
        if not self._value:
            raise UpstreamDenied(f"Provider {self._provider} has a key that cannot be read.")
        return self._value

    async def changed(self) -> bool:
        """Reads it anew, because it was refused; whether it is another now."""
        if self._key.value:
            return False
        old = self._value
        await asyncio.shield(self._read())
        return self._value != old

    def close(self) -> None:
        """Nothing is read any more."""
        if self._reading is not None:
            self._reading.cancel()

    def _read(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._renew())
        return self._reading

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(self._key.timeout_s):
                self._value = _checked(await self._fetched())
        except (Unreadable, TimeoutError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "it took too long"
            log.warning("provider's key not read", provider=self._provider, key=self._key.name, reason=why)
            self._early = self._due = self._now() + AGAIN_S
            return
        self._early, self._due = self._now() + EARLY * self._key.ttl_s, self._now() + self._key.ttl_s

    async def _fetched(self) -> bytes:
        if self._key.command:
            return await _printed(self._key.command)
        return await asyncio.to_thread(_content, Path(self._key.file))


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BYTES_MAX + 1)


async def _printed(command: tuple[str, ...]) -> bytes:
    """What a command says on its standard output.  It gets no input and no shell; what it complains of is lost."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        said = b""
        while len(said) <= BYTES_MAX and (more := await process.stdout.read(BYTES_MAX + 1 - len(said))):
            said += more
        if len(said) <= BYTES_MAX and (status := await process.wait()):
            raise Unreadable(f"the command ended with status {status}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said


def _checked(said: bytes) -> str:
    """Raises Unreadable for what cannot be a key."""
    if len(said) > BYTES_MAX:
        raise Unreadable(f"it is longer than {BYTES_MAX} bytes")
    try:
        value = said.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Unreadable("it is not plain text") from None
    if not value or not value.isprintable() or " " in value:
        raise Unreadable("it is empty, or more than one word")
    return value

"""Records on disk while nothing else takes them: JSON lines in segments, oldest first.

An appended record survives kill -9 as soon as `append` returns, and a power cut after the next `sync`.  A segment is
locked while its writer lives or somebody drains it, so the workers of a gateway share a directory, and whoever comes
next drains what a dead one left.  A last line cut short is skipped: it was never promised.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import structlog

from gateway.sql.records import storable
from gateway.types import Record

log = structlog.get_logger()

BYTES_MAX = 1024**3
SEGMENT_BYTES = 16 * 1024**2
QUARANTINE = "quarantine.jsonl"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Spool:
    """One per process.  `append` is called on the event loop, everything that blocks in one other thread."""

    def __init__(self, directory: Path, bytes_max: int = BYTES_MAX, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._segment_bytes = segment_bytes
        self._fd: int | None = None
        self._path: Path | None = None
        self._size = 0  # of the open segment
        self._dirty = False
        self._ended: list[int] = []  # descriptors of closed segments, for `sync` to close
        self._lock = threading.Lock()  # of `sync`
        self._lines: dict[str, int] = {}  # records in each segment known to this process
        self._bytes = 0  # in the directory

    @property
    def waiting(self) -> int:
        """How many records wait here, as far as this process knows: its own, and those it found when it opened."""
        return sum(list(self._lines.values()))

    def open(self) -> None:
        """Makes the directory and counts what dead processes left.  Raises OSError.  Blocks."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._measure()
        for path in self._segments():
            with _claimed(path) as fd:
                if fd is not None:
                    self._lines[path.name] = path.read_bytes().count(b"\n")

    def append(self, record: Record) -> None:
        """Writes one record.  Raises OSError when the disk or the bound refuses it; the spool is then as it was."""
        line = _line(record)
        if self._bytes + len(line) > self._bytes_max:
            raise OSError(f"the spool holds its maximum of {self._bytes_max} bytes")
        if self._size and self._size + len(line) > self._segment_bytes:
            self.seal()
        fd = self._open()
        try:
            _write(fd, line)
        except OSError:
            try:
                os.ftruncate(fd, self._size)
            except OSError:
                self.seal()  # half a line ends this segment
            raise
        self._size += len(line)
        self._bytes += len(line)
        self._dirty = True
        name = self._path.name if self._path else ""
        self._lines[name] = self._lines.get(name, 0) + 1

    def sync(self) -> None:
        """What was appended before is on the disk, not only with the kernel.  Raises OSError.  Blocks."""
        with self._lock:
            open_ = self._fd
            if self._dirty and open_ is not None:
                self._dirty = False
                os.fsync(open_)  # only this method closes descriptors, so it is still the segment's
                _synced(os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC))  # the segment's name
            while self._ended:
                _synced(self._ended.pop())

    def seal(self) -> Path | None:
        """Ends the open segment, if there is one.  The next `sync` lets it be drained."""
        path, self._path = self._path, None
        if self._fd is not None:
            self._ended.append(self._fd)
            self._fd, self._size = None, 0
        return path

    def closed_segments(self) -> list[Path]:
        """Every segment but the open one, oldest first.  Blocks."""
        self.sync()
        return [path for path in self._segments() if path != self._path]

    @contextmanager
    def claim(self, path: Path) -> Iterator[Segment | None]:
        """The segment, to read and remove; None when its writer lives, somebody else drains it, or it is gone."""
        with _claimed(path) as fd:
            yield None if fd is None else Segment(self, path)

    def removed(self, path: Path) -> None:
        """The records of this segment wait no longer."""
        self._lines.pop(path.name, None)
        self._measure()

    def quarantine(self, content: bytes, reason: str) -> None:
        """Puts aside what can never be stored, for a person to look at.  Raises OSError.  Blocks."""
        entry = {"at": time.time(), "reason": reason, "content": content.decode("utf-8", "replace")}
        with (self._directory / QUARANTINE).open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def quarantine_record(self, record: Record, reason: str) -> None:
        """As `quarantine`."""
        self.quarantine(_line(record).rstrip(), reason)

    def _open(self) -> int:
        if self._fd is not None:
            return self._fd
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"spool-{time.time_ns():020d}-{os.getpid()}.jsonl"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(fd).st_nlink:
                raise BlockingIOError("another process drained the new segment before it was locked")
        except OSError:
            os.close(fd)
            raise
        self._fd, self._path, self._size = fd, path, 0
        return fd

    def _segments(self) -> list[Path]:
        return sorted(self._directory.glob("spool-*.jsonl"))

    def _measure(self) -> None:
        total = 0
        for path in self._segments():
            with suppress(OSError):
                total += path.stat().st_size
        self._bytes = total


class Segment:
    """One closed file of records.  Read again from its beginning if it was not removed."""

    def __init__(self, spool: Spool, path: Path) -> None:
        self._spool = spool
        self._path = path
        self._offset = 0

    def read(self, count: int) -> list[Record]:
        """Up to `count` records more; none at the end.  What is not a record goes into quarantine.  Blocks."""
        found: list[Record] = []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                self._offset += len(line)
                if not line.endswith(b"\n"):
                    log.warning("the last line of a spool segment was cut short", segment=self._path.name)
                    break
                try:
                    found.append(_decode(line))
                except (msgspec.MsgspecError, ValueError) as error:
                    self._spool.quarantine(line.rstrip(), f"not a record: {error}")
                if len(found) >= count:
                    break
        return found

    def remove(self) -> None:
        """All of it is in SQL.  Blocks."""
        self._path.unlink()
        self._spool.removed(self._path)


def _line(record: Record) -> bytes:
    try:
        return _encode(record) + b"\n"
    except UnicodeEncodeError:
        return _encode(storable(msgspec.to_builtins(record))) + b"\n"


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _synced(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _claimed(path: Path) -> Iterator[int | None]:
    """The segment, locked; None when its writer lives, somebody else drains it, or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd if os.fstat(fd).st_nlink else None
    except BlockingIOError:
        yield None
    finally:
        os.close(fd)

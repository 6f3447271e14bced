"""Newline-delimited JSON: bytes -> lines.  Pure.  https://github.com/ndjson/ndjson-spec"""

from __future__ import annotations

from gateway.errors import UpstreamBroken

LINE_BYTES_MAX = 32 * 1024 * 1024
"""A line may carry a whole image in base64; more than this is no line."""


class Splitter:
    """Cuts a stream into its lines, the same ones however it is split into chunks; blank lines are left out."""

    __slots__ = ("_line_bytes_max", "_pending", "_scanned")

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._pending = bytearray()
        self._scanned = 0  # no line ends before here

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends.  Raises UpstreamBroken for one that is too long."""
        pending = self._pending
        pending += chunk
        end = pending.rfind(b"\n", self._scanned) + 1
        lines = [line for part in bytes(pending[:end]).split(b"\n") if (line := part.strip())]
        del pending[:end]
        self._scanned = len(pending)
        if self._scanned > self._line_bytes_max:
            raise UpstreamBroken(f"The provider sent a line of more than {self._line_bytes_max} bytes.")
        return lines

    def rest(self) -> list[bytes]:
        """The stream has ended: the line that lacks its end, if any."""
        rest = bytes(self._pending).strip()
        self._pending.clear()
        self._scanned = 0
        return [rest] if rest else []

"""A deadline that moves with every event of a stream, at the price of an assignment."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Deadline:
    """As `asyncio.timeout_at`: whoever is still inside at `at` (loop time) is cancelled, and TimeoutError raised.

    When the timer fires it looks whether the end has moved meanwhile; only an end that comes nearer sets a new one.
    """

    __slots__ = ("_armed", "_at", "_cancelling", "_loop", "_missed", "_task", "_timer")

    def __init__(self, at: float) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a deadline needs a task that it can cancel")
        self._task = task
        self._at = self._armed = at
        self._missed = False

    def move(self, at: float) -> None:
        """The end is at another time."""
        self._at = at
        if at < self._armed and not self._missed:
            self._timer.cancel()
            self._arm()

    def __enter__(self) -> Self:
        self._cancelling = self._task.cancelling()
        self._arm()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._timer.cancel()
        if self._missed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _arm(self) -> None:
        self._armed = self._at
        self._timer = self._loop.call_at(self._at, self._due)

    def _due(self) -> None:
        if self._at > self._armed:
            self._arm()
        else:
            self._missed = True
            self._task.cancel()

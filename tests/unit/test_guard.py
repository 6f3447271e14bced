"""Who comes to the admin API, and what it takes until somebody does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import MutableMapping
from threading import get_ident
from typing import Any

import pytest

from gateway.api.front import Endpoint
from gateway.api.guard import Guarded
from gateway.api.reply import ASGISend, Receive


class Behind:
    """What is behind the door, and how often and where it was made."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.asked: list[str] = []

    def make(self) -> Endpoint:
        self.made.append(get_ident())
        return self.answer

    async def answer(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:
        self.asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def status(door: Guarded, key: str, path: str = "/admin/v1/tenants") -> int:
    told: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    scope = {"path": path, "headers": [(b"authorization", f"Bearer {key}".encode())]}
    await door(scope, receive, send)
    return int(told[0]["status"])


async def test_whoever_has_no_key_has_nothing_made_for_him() -> None:
    behind = Behind()
    assert await status(Guarded("right", behind.make), "wrong") == 401
    assert await status(Guarded(None, behind.make), "right") == 404
    assert behind.made == []


async def test_what_is_behind_is_made_once_and_beside_the_loop_however_many_come_first() -> None:
    behind = Behind()
    door = Guarded("right", behind.make)
    paths = [f"/admin/v1/{number}" for number in range(20)]
    assert set(await asyncio.gather(*(status(door, "right", path) for path in paths))) == {200}
    assert len(behind.made) == 1
    assert behind.made != [get_ident()]
    assert sorted(behind.asked) == sorted(paths)


async def test_what_could_not_be_made_is_made_for_the_next() -> None:
    behind, failures = Behind(), [ImportError("no room")]

    def make() -> Endpoint:
        if failures:
            raise failures.pop()
        return behind.make()

    door = Guarded("right", make)
    with pytest.raises(ImportError):
        await status(door, "right")
    assert await status(door, "right") == 200


def test_a_start_imports_nothing_that_only_administrators_need() -> None:
    asked = "import sys, gateway.app; print([each for each in ('fastapi', 'starlette') if each in sys.modules])"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, told.stdout) == (0, "[]\n"), told.stderr

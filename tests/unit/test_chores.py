"""What runs beside the requests."""

from __future__ import annotations

import asyncio

import structlog

from gateway.chores import AGAIN_S, Chores


async def test_a_chore_that_breaks_off_is_told_and_begins_again_after_a_rest() -> None:
    began, rests, works = 0, [], asyncio.Event()

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    async def chore() -> None:
        nonlocal began
        began += 1
        if began < 3:
            raise OSError("no space left on device")
        works.set()
        await asyncio.Event().wait()

    chores = Chores(sleep=rest)
    with structlog.testing.capture_logs() as told:
        chores.begin(chore)
        await works.wait()
    assert (began, rests) == (3, [AGAIN_S, AGAIN_S])
    assert [line["log_level"] for line in told] == ["error", "error"]
    await chores.end()


async def test_one_that_breaks_off_disturbs_no_other_and_all_end_when_told() -> None:
    ended: list[str] = []
    at_work = asyncio.Event()

    async def steady() -> None:
        try:
            at_work.set()
            await asyncio.Event().wait()
        finally:
            ended.append("steady")

    async def broken() -> None:
        raise RuntimeError("a bug")

    chores = Chores()
    chores.begin(broken)
    chores.begin(steady)
    await at_work.wait()
    assert ended == []
    await chores.end()
    assert ended == ["steady"]

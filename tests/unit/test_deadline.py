"""A deadline ends what is inside it at the time it was last moved to, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from gateway.transport.deadline import Deadline

SOON, LATER, NEVER = 0.01, 0.05, 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def forever() -> None:
    await asyncio.Event().wait()


async def moved(first: float, *others: float) -> None:
    with Deadline(first) as deadline:
        for at in others:
            deadline.move(at)
        await forever()


async def test_what_takes_too_long_is_a_timeout_and_leaves_no_cancellation_behind() -> None:
    with pytest.raises(TimeoutError), Deadline(now() + SOON):
        await forever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_end_that_was_moved_away_is_kept_to_the_new_time() -> None:
    began = now()
    with pytest.raises(TimeoutError):
        await moved(began + SOON, began + LATER)
    assert now() - began >= LATER - 0.001


@pytest.mark.parametrize("before", [SOON, NEVER])
async def test_an_end_that_was_moved_nearer_is_kept(before: float) -> None:
    with pytest.raises(TimeoutError):
        await moved(now() + before, now() + NEVER, now() + LATER)


async def test_what_is_done_in_time_is_not_cancelled_afterwards() -> None:
    with Deadline(now() + SOON):
        pass
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(2 * SOON, over.set)
    await over.wait()


async def test_an_error_from_inside_stays_itself() -> None:
    with pytest.raises(ValueError, match="inside"), Deadline(now() + NEVER):
        raise ValueError("inside")


async def test_whoever_is_cancelled_from_outside_is_cancelled_and_not_late() -> None:
    async def waits() -> None:
        with Deadline(now() + NEVER):
            inside.set()
            await forever()

    inside = asyncio.Event()
    task = asyncio.create_task(waits())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()

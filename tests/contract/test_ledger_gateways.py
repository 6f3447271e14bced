"""What several gateways on one ledger share: windows that begin, and places in flight."""

from __future__ import annotations

import asyncio
from zoneinfo import ZoneInfo

import pytest
from ledgers import Keeper, figures, hold, line, settle

from gateway.errors import LimitReached
from gateway.types import Every, Unit, Window

ZONE = ZoneInfo("Europe/Berlin")
CALENDAR = [Window(every, zone=ZONE) for every in Every if every is not Every.TOTAL]
ROLLING = [Window(rolling_s=seconds) for seconds in (60, 86_400)]


@pytest.mark.parametrize("window", CALENDAR + ROLLING, ids=str)
async def test_each_window_begins_empty_and_is_as_hard_as_the_one_before(keeper: Keeper, window: Window) -> None:
    gateways = keeper.open(), keeper.open()
    cap = line(40, 100, window=window)
    for number in range(4):
        for at, gateway in enumerate(gateways):  # what the first has spent of a window, the second finds
            assert await figures(gateway, cap) == (30 * at, 0)
            await gateway.reserve(hold(f"w{number}.{at}", cap))
            await settle(gateway, hold(f"w{number}.{at}", cap), 30)
        for gateway in gateways:
            with pytest.raises(LimitReached):
                await gateway.reserve(hold(f"w{number}.much", line(41, 100, window=window)))
            assert await figures(gateway, cap) == (60, 0)
        resets = (await gateways[0].balances([cap]))[0].resets
        keeper.clock.now = keeper.clock.now + window.rolling_s * 62 / 60 if resets is None else resets


async def test_places_in_flight_are_of_all_gateways_together(keeper: Keeper) -> None:
    gateways = [keeper.open() for _ in range(4)]
    place = line(1, 5, unit=Unit.CONCURRENT)
    asked = [gateways[number % 4].reserve(hold(f"r{number}", place)) for number in range(40)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, list)]) == 5
    assert len([answer for answer in answers if isinstance(answer, LimitReached)]) == 35
    assert await figures(gateways[0], place) == (0, 5)

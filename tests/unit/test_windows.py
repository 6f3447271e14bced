from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from gateway.ledger.windows import FOREVER, SLOTS, Spans, span
from gateway.types import Every, Window

BERLIN = ZoneInfo("Europe/Berlin")
HAVANA = ZoneInfo("America/Havana")  # an hour after midnight it is midnight again
CAIRO = ZoneInfo("Africa/Cairo")  # has a midnight that does not exist
KATHMANDU = ZoneInfo("Asia/Kathmandu")  # UTC+05:45
APIA = ZoneInfo("Pacific/Apia")  # skipped the 30th of December 2011
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # shifts by half an hour

CALENDAR = [every for every in Every if every is not Every.TOTAL]


def ms(*parts: int, zone: tzinfo = UTC, fold: int = 0) -> int:
    return int(datetime(*parts, tzinfo=zone, fold=fold).timestamp() * 1000)  # type: ignore[arg-type,misc]  # parts are ints


@pytest.mark.parametrize(
    ("every", "start", "end"),
    [
        (Every.MINUTE, (2026, 2, 28, 23, 59), (2026, 3, 1, 0, 0)),
        (Every.HOUR, (2026, 2, 28, 23, 0), (2026, 3, 1, 0, 0)),
        (Every.DAY, (2026, 2, 28), (2026, 3, 1)),
        (Every.WEEK, (2026, 2, 23), (2026, 3, 2)),
        (Every.MONTH, (2026, 2, 1), (2026, 3, 1)),
        (Every.QUARTER, (2026, 1, 1), (2026, 4, 1)),
        (Every.YEAR, (2026, 1, 1), (2027, 1, 1)),
    ],
)
@pytest.mark.parametrize("zone", [UTC, BERLIN, KATHMANDU])
def test_a_calendar_window_runs_from_boundary_to_boundary_in_its_zone(
    every: Every, start: tuple[int, ...], end: tuple[int, ...], zone: tzinfo
) -> None:
    found = span(Window(every, zone=zone), ms(2026, 2, 28, 23, 59, 30, zone=zone))
    assert (found.start, found.end) == (ms(*start, zone=zone), ms(*end, zone=zone))
    assert found.resets == found.end / 1000


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, (2024, 3, 31), 23),
        (BERLIN, (2024, 10, 27), 25),
        (HAVANA, (2024, 3, 10), 23),
        (HAVANA, (2024, 11, 3), 25),
        (CAIRO, (2024, 4, 26), 23),
        (LORD_HOWE, (2024, 4, 7), 24.5),
        (APIA, (2011, 12, 29), 24),
        (APIA, (2011, 12, 31), 24),
    ],
)
def test_a_day_is_as_long_as_daylight_saving_makes_it(zone: tzinfo, day: tuple[int, ...], hours: float) -> None:
    found = span(Window(Every.DAY, zone=zone), ms(*day, 12, zone=zone))
    assert (found.end - found.start) / 3_600_000 == hours


def test_both_midnights_of_a_day_that_has_two_are_in_the_same_window() -> None:
    window = Window(Every.DAY, zone=HAVANA)
    first, second = ms(2024, 11, 3, 0, 30, zone=HAVANA), ms(2024, 11, 3, 0, 30, zone=HAVANA, fold=1)
    assert second - first == 3_600_000
    assert span(window, first) == span(window, second)


def test_the_repeated_hour_is_an_hour_of_its_own() -> None:
    window = Window(Every.HOUR, zone=BERLIN)
    first = span(window, ms(2024, 10, 27, 2, 30, zone=BERLIN))
    second = span(window, ms(2024, 10, 27, 2, 30, zone=BERLIN, fold=1))
    assert first.end == second.start


@given(
    every=st.sampled_from(CALENDAR),
    zone=st.sampled_from([UTC, BERLIN, HAVANA, CAIRO, KATHMANDU, APIA, ZoneInfo("America/Sao_Paulo")]),
    now=st.integers(ms(2010, 1, 1), ms(2060, 1, 1)),
)
def test_windows_follow_each_other_without_gap_or_overlap(every: Every, zone: tzinfo, now: int) -> None:
    window = Window(every, zone=zone)
    found = span(window, now)
    assert found.start <= now < found.end
    assert span(window, found.start) == span(window, found.end - 1) == found
    after = span(window, found.end)
    assert after.start == found.end
    assert after.name != found.name


def test_a_total_window_has_no_end() -> None:
    found = span(Window(Every.TOTAL), ms(2026, 1, 1))
    assert (found.resets, found.end, found.name) == (None, FOREVER, "total")


@given(length_s=st.integers(1, 40 * 86_400), now=st.integers(ms(2020, 1, 1), ms(2060, 1, 1)))
def test_a_rolling_window_counts_all_of_its_length_and_at_most_a_slot_more(length_s: int, now: int) -> None:
    found = span(Window(rolling_s=length_s), now)
    counted_from = found.first(now) * found.step
    assert now - length_s * 1000 - found.step < counted_from <= now - length_s * 1000
    assert found.step <= length_s * 1000 / SLOTS + 1
    assert found.resets is None


@given(
    length_s=st.integers(1, 5000),
    ages=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=20),
    excess=st.integers(1, 60),
)
def test_room_comes_when_it_is_promised_and_not_before(
    length_s: int, ages: list[tuple[float, int]], excess: int
) -> None:
    now = ms(2026, 9, 16)
    found = span(Window(rolling_s=length_s), now)
    used = [(found.slot(now - int(age * length_s * 1000)), amount) for age, amount in ages]
    promised = found.room_at(used, excess, now)
    assert promised is not None

    def gone(at: int) -> int:
        return sum(amount for slot, amount in used if slot < found.first(at))

    at = round(promised * 1000)
    assert at > now
    if excess <= sum(amount for _, amount in used):
        assert gone(at) >= excess > gone(at - 1)


def test_a_window_is_computed_once_until_it_ends() -> None:
    spans = Spans(size=2)
    day = Window(Every.DAY, zone=BERLIN)
    noon, midnight = ms(2026, 9, 16, 12, zone=BERLIN), ms(2026, 9, 17, zone=BERLIN)
    first = spans.at(day, noon)
    assert spans.at(day, midnight - 1) is first
    assert spans.at(day, midnight).start == midnight
    assert spans.at(day, noon) == first
    for every in (Every.WEEK, Every.MONTH, Every.YEAR):
        spans.at(Window(every), noon)
    assert spans.at(day, noon) == first


def test_the_windows_of_a_year_are_its_days() -> None:
    at, starts = ms(2025, 1, 1, zone=BERLIN), []
    while at < ms(2026, 1, 1, zone=BERLIN):
        starts.append(at)
        at = span(Window(Every.DAY, zone=BERLIN), at).end
    assert len(starts) == 365
    assert {b - a for a, b in pairwise(starts)} == {hours * 3_600_000 for hours in (23, 24, 25)}

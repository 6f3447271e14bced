"""What every ledger promises (gateway/ledger/base.py), on every keeper."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from ledgers import ACME, DAY, KEY, PROVIDER, WEDNESDAY, Clock, Keeper, draft, figures, hold, line, record, settle

from gateway.errors import BudgetExceeded, Conflict, LimitReached, RateLimited
from gateway.ledger.base import Ledger, Reservation, Settlement, Spent
from gateway.money import nano
from gateway.types import Account, Action, Every, Unit, Window

MINUTE = Window(Every.MINUTE)
TOTAL = Window(Every.TOTAL)
ROLLING_HOUR = Window(rolling_s=3600)


async def admitted(ledger: Ledger, holds: list[Reservation]) -> list[Reservation]:
    """Those that were not refused, of all at once."""
    answers = await asyncio.gather(*(ledger.reserve(each) for each in holds), return_exceptions=True)
    assert all(isinstance(answer, list | LimitReached) for answer in answers), answers
    return [each for each, answer in zip(holds, answers, strict=True) if isinstance(answer, list)]


# Reserve


async def test_a_reservation_is_held_on_every_line(ledger: Ledger) -> None:
    lines = (line(300, 1000), line(300, 500, account=KEY), line(1, 5, unit=Unit.REQUESTS, window=MINUTE))
    balances = await ledger.reserve(hold("a", *lines))
    assert [(b.account, b.spent, b.reserved, b.remaining) for b in balances] == [
        (ACME, 0, 300, 700),
        (KEY, 0, 300, 200),
        (ACME, 0, 1, 4),
    ]
    assert await ledger.balances(lines) == balances


async def test_a_refused_request_consumes_nothing(ledger: Ledger) -> None:
    lines = (
        line(1, 5, unit=Unit.REQUESTS, window=MINUTE),
        line(1, 5, unit=Unit.CONCURRENT),
        line(70, 100, unit=Unit.INPUT_TOKENS, window=MINUTE),
        line(90, 100, unit=Unit.OUTPUT_TOKENS, window=MINUTE),
        line(300, 1000),
        line(300, 1000, account=PROVIDER),
        line(300, 299, account=KEY),
    )
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(hold("a", *lines))
    assert [(b.spent, b.reserved) for b in await ledger.balances(lines)] == [(0, 0)] * 7
    assert await ledger.expire() == 0
    assert await ledger.outbox(10) == []


@pytest.mark.parametrize(
    ("unit", "window"),
    [
        (Unit.REQUESTS, MINUTE),
        (Unit.TOKENS, MINUTE),
        (Unit.INPUT_TOKENS, MINUTE),
        (Unit.OUTPUT_TOKENS, MINUTE),
        (Unit.CONCURRENT, DAY),
    ],
)
async def test_a_full_limit_on_pace_refuses_and_takes_no_money(ledger: Ledger, unit: Unit, window: Window) -> None:
    lines = (line(300, 1000), line(5, 4, unit=unit, window=window))
    with pytest.raises(RateLimited):
        await ledger.reserve(hold("a", *lines))
    assert [(b.spent, b.reserved) for b in await ledger.balances(lines)] == [(0, 0)] * 2


async def test_a_refusal_by_an_account_no_tenant_owns_frees_the_tenants_share(ledger: Ledger) -> None:
    own, shared = line(300, 1000), line(300, 299, account=PROVIDER)
    with pytest.raises(BudgetExceeded, match="provider openai"):
        await ledger.reserve(hold("a", own, shared))
    assert await figures(ledger, own) == (0, 0)
    assert await figures(ledger, shared) == (0, 0)


async def test_200_at_once_on_a_cap_that_fits_37_are_37(ledger: Ledger) -> None:
    cap = line(27, 37 * 27 + 26)
    taken = await admitted(ledger, [hold(f"r{number}", cap) for number in range(200)])
    assert len(taken) == 37
    assert await figures(ledger, cap) == (0, 37 * 27)
    for each in taken:
        assert await settle(ledger, each, 27) is Settlement.SETTLED
    assert await figures(ledger, cap) == (37 * 27, 0)
    assert not await admitted(ledger, [hold("late", cap)])
    assert sum(each.cost or 0 for _, each in await ledger.outbox(1000)) == 37 * 27


async def test_200_at_once_through_two_gateways_are_37(keeper: Keeper) -> None:
    first, second = keeper.open(), keeper.open()
    cap = line(27, 37 * 27)
    shares = await asyncio.gather(
        admitted(first, [hold(f"a{number}", cap) for number in range(100)]),
        admitted(second, [hold(f"b{number}", cap) for number in range(100)]),
    )
    assert sum(len(share) for share in shares) == 37


async def test_a_line_is_full_to_the_last_nano_dollar_and_not_before(ledger: Ledger) -> None:
    await ledger.reserve(hold("a", line(999, 1000)))
    await ledger.reserve(hold("b", line(1, 1000)))
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(hold("c", line(1, 1000)))


async def test_what_costs_nothing_passes_a_full_budget(ledger: Ledger) -> None:
    await ledger.reserve(hold("a", line(1000, 1000)))
    await ledger.reserve(hold("free", line(0, 1000)))
    assert await settle(ledger, hold("free", line(0, 1000)), 0) is Settlement.SETTLED


async def test_a_limit_lowered_below_what_is_spent_refuses_until_the_window_resets(
    ledger: Ledger, clock: Clock
) -> None:
    await ledger.reserve(hold("a", line(900, 1000)))
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(hold("b", line(1, 500)))
    clock.advance(86_400)
    await ledger.reserve(hold("c", line(1, 500)))


async def test_degrade_and_alert_lines_are_counted_and_never_refuse(ledger: Ledger) -> None:
    for number, action in enumerate((Action.DEGRADE, Action.ALERT)):
        account = Account("team", f"t{number}", "acme")
        each = line(700, 1000, account=account, action=action)
        await ledger.reserve(hold(f"a{number}", each))
        (balance,) = await ledger.reserve(hold(f"b{number}", each))
        assert (balance.reserved, balance.remaining) == (1400, 0)


async def test_two_limits_on_one_counter_count_a_request_once(ledger: Ledger) -> None:
    deny, alert = line(300, 1000), line(300, 400, action=Action.ALERT)
    balances = await ledger.reserve(hold("a", deny, alert))
    assert [b.reserved for b in balances] == [300, 300]
    await settle(ledger, hold("a", deny, alert), 200)
    assert await figures(ledger, deny) == (200, 0)
    assert await figures(ledger, alert) == (200, 0)


async def test_accounts_whose_names_look_alike_are_kept_apart(ledger: Ledger) -> None:
    accounts = [
        Account("user", "a~b", "acme"),
        Account("user", "b", "acme~a"),
        Account("user~acme", "b", "a"),
        Account("user", "{t00}", "acme"),
        Account("user", "ä\x00\n", "acme"),
        Account("user", "", "acme"),
        Account("key", "b", "acme"),
        Account("user", "b", ""),
    ]
    for number, account in enumerate(accounts):
        await ledger.reserve(hold(f"r{number}", line(10 + number, 100, account=account)))
    balances = await ledger.balances([line(0, 100, account=account) for account in accounts])
    assert [b.reserved for b in balances] == [10 + number for number in range(len(accounts))]


async def test_units_and_windows_of_one_account_are_kept_apart(ledger: Ledger) -> None:
    lines = (
        line(5, 10),
        line(6, 10, window=MINUTE),
        line(7, 10, window=TOTAL),
        line(8, 10, unit=Unit.TOKENS),
        line(9, 10, window=ROLLING_HOUR),
        line(4, 10, window=Window(rolling_s=60)),
        line(1, 10, unit=Unit.CONCURRENT),
    )
    await ledger.reserve(hold("a", *lines))
    assert [b.reserved for b in await ledger.balances(lines)] == [5, 6, 7, 8, 9, 4, 1]


async def test_an_id_is_reserved_once(ledger: Ledger) -> None:
    await ledger.reserve(hold("a", line(10, 100)))
    with pytest.raises(Conflict):
        await ledger.reserve(hold("a", line(10, 100)))
    await settle(ledger, hold("a", line(10, 100)), 10)
    with pytest.raises(Conflict):
        await ledger.reserve(hold("a", line(10, 100)))
    assert await figures(ledger, line(0, 100)) == (10, 0)


async def test_a_negative_amount_is_an_error_and_changes_nothing(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="-1"):
        await ledger.reserve(hold("a", line(100, 1000), line(-1, 1000, account=KEY)))
    assert await figures(ledger, line(0, 1000)) == (0, 0)


async def test_an_absurd_amount_is_refused_like_any_other(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(hold("a", line(10**30, nano(100))))


async def test_amounts_are_exact_up_to_nine_million_dollars(ledger: Ledger) -> None:
    cap = nano(9_000_000)
    await ledger.reserve(hold("a", line(cap - 1, cap)))
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(hold("b", line(2, cap)))
    await settle(ledger, hold("a", line(cap - 1, cap)), cap - 1)
    (balance,) = await ledger.reserve(hold("c", line(1, cap)))
    assert (balance.spent, balance.reserved, balance.remaining) == (cap - 1, 1, 0)


async def test_a_reservation_without_lines_is_settled_and_recorded_too(ledger: Ledger) -> None:
    assert await ledger.reserve(hold("a")) == []
    assert await settle(ledger, hold("a"), 5) is Settlement.SETTLED
    assert [each.id for _, each in await ledger.outbox(10)] == ["a"]


# Refusals


async def test_a_budget_refusal_names_account_window_limit_spent_needed_and_reset(ledger: Ledger) -> None:
    cap = nano("0.05")
    await ledger.reserve(hold("a", line(nano("0.03"), cap)))
    await settle(ledger, hold("a", line(0, cap)), nano("0.01"))
    await ledger.reserve(hold("b", line(nano("0.02"), cap)))
    with pytest.raises(BudgetExceeded) as refused:
        await ledger.reserve(hold("c", line(nano("0.025"), cap)))
    for part in ("tenant acme", "day", "limit $0.05", "spent $0.01", "in flight $0.02", "needed $0.025"):
        assert part in refused.value.message
    assert (refused.value.account, refused.value.window) == ("tenant acme", "day")
    assert refused.value.retry_after_s == 12 * 3600
    assert not refused.value.retryable


async def test_a_rate_refusal_says_when_the_minute_is_over(ledger: Ledger, clock: Clock) -> None:
    clock.advance(41.5)
    calls = line(1, 2, unit=Unit.REQUESTS, window=MINUTE)
    for name in "ab":
        await ledger.reserve(hold(name, calls, line(5, 1000)))
    with pytest.raises(RateLimited) as refused:
        await ledger.reserve(hold("c", calls, line(5, 1000)))
    assert refused.value.retry_after_s == pytest.approx(18.5)
    assert refused.value.retryable
    assert await figures(ledger, line(0, 1000)) == (0, 10)


async def test_a_rolling_refusal_says_when_enough_has_left(ledger: Ledger, clock: Clock) -> None:
    calls = line(1, 3, unit=Unit.REQUESTS, window=Window(rolling_s=60))
    for name in "abc":
        await ledger.reserve(hold(name, calls))
        clock.advance(10)
    with pytest.raises(RateLimited) as refused:
        await ledger.reserve(hold("d", calls))
    assert refused.value.retry_after_s == pytest.approx(31)
    clock.advance(31)
    await ledger.reserve(hold("d", calls))
    with pytest.raises(RateLimited):
        await ledger.reserve(hold("e", calls))


async def test_a_total_budget_does_not_promise_a_reset(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded) as refused:
        await ledger.reserve(hold("a", line(11, 10, window=TOTAL)))
    assert refused.value.retry_after_s is None


# Places in flight


async def test_places_in_flight_are_given_back_however_a_request_ends(ledger: Ledger, clock: Clock) -> None:
    place = line(1, 2, unit=Unit.CONCURRENT)
    await ledger.reserve(hold("a", place))
    await ledger.reserve(hold("b", place))
    with pytest.raises(RateLimited) as refused:
        await ledger.reserve(hold("c", place))
    assert refused.value.retry_after_s == 1.0
    await settle(ledger, hold("a", place), 5)
    await ledger.release(hold("b", place))
    assert await figures(ledger, place) == (0, 0)
    await ledger.reserve(hold("d", place))
    clock.advance(121)
    assert await ledger.expire() == 1
    assert await figures(ledger, place) == (0, 0)
    await settle(ledger, hold("d", place), 5)
    assert await figures(ledger, place) == (0, 0)


async def test_places_in_flight_are_kept_over_midnight(ledger: Ledger, clock: Clock) -> None:
    place = line(1, 1, unit=Unit.CONCURRENT)
    await ledger.reserve(hold("a", place, ttl_s=86_400))
    clock.advance(13 * 3600)
    with pytest.raises(RateLimited):
        await ledger.reserve(hold("b", place))


# Settle


async def test_a_settlement_books_what_was_used_in_each_unit_and_frees_the_rest(ledger: Ledger) -> None:
    lines = (
        line(500, 1000),
        line(1, 10, unit=Unit.REQUESTS, window=MINUTE),
        line(4000, 9000, unit=Unit.TOKENS, window=MINUTE),
        line(3000, 9000, unit=Unit.INPUT_TOKENS, window=MINUTE),
        line(1000, 9000, unit=Unit.OUTPUT_TOKENS, window=MINUTE),
        line(1, 3, unit=Unit.CONCURRENT),
        line(500, 1000, account=PROVIDER),
    )
    reservation = hold("a", *lines)
    await ledger.reserve(reservation)
    spent = Spent(cost=123, requests=1, input_tokens=700, output_tokens=77)
    assert await ledger.settle(reservation, spent, record(reservation, 123)) is Settlement.SETTLED
    assert [(b.spent, b.reserved) for b in await ledger.balances(lines)] == [
        (123, 0),
        (1, 0),
        (777, 0),
        (700, 0),
        (77, 0),
        (0, 0),
        (123, 0),
    ]


async def test_a_provider_that_served_a_share_is_charged_with_that_share_and_the_others_with_nothing(
    ledger: Ledger, clock: Clock
) -> None:
    other, place = Account("provider", "anthropic"), Account("deployment", "gpt-mini", "acme")
    lines = (
        line(500, 1000),
        line(500, 1000, account=PROVIDER),
        line(400, 1000, account=other),
        line(500, 1000, account=place),
        line(1, 10, unit=Unit.REQUESTS, window=MINUTE, account=other),
    )
    shares = {"provider openai": Spent(100, 1, 7), "deployment gpt-mini": Spent(60, 1, 7)}
    settled, late, unknown = (hold(id_, *lines, ttl_s=10) for id_ in "abc")
    await ledger.reserve(settled)
    await ledger.settle(settled, Spent(123, shares=shares), record(settled, 123))
    once = [(123, 0), (100, 0), (0, 0), (60, 0), (0, 0)]
    assert [(b.spent, b.reserved) for b in await ledger.balances(lines)] == once
    await ledger.reserve(late)
    clock.advance(11)
    await ledger.expire()
    assert [b.spent for b in await ledger.balances(lines)] == [623, 600, 400, 560, 1]
    await ledger.settle(late, Spent(123, shares=shares), record(late, 123))
    await ledger.settle(unknown, Spent(123, shares=shares), record(unknown, 123))
    assert [(b.spent, b.reserved) for b in await ledger.balances(lines)] == [(3 * s, r) for s, r in once]


async def test_a_bill_above_the_hold_is_booked_in_full_and_then_nothing_passes(ledger: Ledger) -> None:
    await ledger.reserve(hold("a", line(100, 1000)))
    await settle(ledger, hold("a", line(100, 1000)), 1500)
    assert await figures(ledger, line(0, 1000)) == (1500, 0)
    (balance,) = await ledger.balances([line(0, 1000)])
    assert balance.remaining == 0
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(hold("b", line(1, 1000)))


async def test_a_second_settlement_changes_nothing(ledger: Ledger) -> None:
    reservation = hold("a", line(100, 1000), line(100, 1000, account=PROVIDER))
    await ledger.reserve(reservation)
    assert await settle(ledger, reservation, 40) is Settlement.SETTLED
    assert await settle(ledger, reservation, 90) is Settlement.AGAIN
    assert await figures(ledger, line(0, 1000)) == (40, 0)
    assert await figures(ledger, line(0, 1000, account=PROVIDER)) == (40, 0)
    assert [each.cost for _, each in await ledger.outbox(10)] == [40]


async def test_two_gateways_that_settle_at_once_count_once(keeper: Keeper) -> None:
    first, second = keeper.open(), keeper.open()
    reservations = [hold(f"r{number}", line(10, 1000), line(10, 1000, account=PROVIDER)) for number in range(20)]
    for each in reservations:
        await first.reserve(each)
    answers = await asyncio.gather(*(settle(gateway, each, 7) for each in reservations for gateway in (first, second)))
    assert sorted(answers) == ["again"] * 20 + ["settled"] * 20
    assert await figures(second, line(0, 1000)) == (140, 0)
    assert await figures(second, line(0, 1000, account=PROVIDER)) == (140, 0)
    assert len(await first.outbox(100)) == 20


async def test_a_settlement_needs_no_hold_made_by_the_same_gateway(keeper: Keeper) -> None:
    reservation = hold("a", line(10, 1000))
    await keeper.open().reserve(reservation)
    assert await settle(keeper.open(), reservation, 7) is Settlement.SETTLED


async def test_a_settlement_nobody_reserved_is_booked_once_and_recorded(ledger: Ledger) -> None:
    reservation = hold("a", line(10, 1000), line(1, 5, unit=Unit.REQUESTS), line(10, 1000, account=PROVIDER))
    assert await settle(ledger, reservation, 7) is Settlement.UNKNOWN
    assert await settle(ledger, reservation, 7) is Settlement.AGAIN
    assert [b.spent for b in await ledger.balances(reservation.lines)] == [7, 1, 7]
    assert [each.cost for _, each in await ledger.outbox(10)] == [7]


async def test_a_settlement_nobody_reserved_is_charged_to_the_window_of_the_request(ledger: Ledger) -> None:
    yesterday = WEDNESDAY - 86_400
    week = line(10, 1000, window=Window(Every.WEEK))
    await settle(ledger, hold("a", line(10, 1000), week, at=yesterday), 7)
    assert await figures(ledger, line(0, 1000)) == (0, 0)
    assert await figures(ledger, week) == (7, 0)


# Release


async def test_a_release_frees_everything_and_records_nothing(ledger: Ledger, clock: Clock) -> None:
    reservation = hold("a", line(100, 100), line(1, 1, unit=Unit.REQUESTS), line(100, 100, account=PROVIDER))
    await ledger.reserve(reservation)
    await ledger.release(reservation)
    await ledger.release(reservation)
    assert [(b.spent, b.reserved) for b in await ledger.balances(reservation.lines)] == [(0, 0)] * 3
    clock.advance(1000)
    assert await ledger.expire() == 0
    assert await ledger.outbox(10) == []


async def test_a_settlement_after_a_release_is_booked_all_the_same(ledger: Ledger) -> None:
    reservation = hold("a", line(100, 1000))
    await ledger.reserve(reservation)
    await ledger.release(reservation)
    assert await settle(ledger, reservation, 60) is Settlement.UNKNOWN
    await ledger.release(reservation)
    assert await figures(ledger, line(0, 1000)) == (60, 0)


async def test_a_reserve_that_was_overtaken_by_its_release_holds_nothing(ledger: Ledger) -> None:
    await ledger.release(hold("a", line(100, 1000)))
    with pytest.raises(Conflict):
        await ledger.reserve(hold("a", line(100, 1000)))
    assert await figures(ledger, line(0, 1000)) == (0, 0)


async def test_a_caller_that_is_cancelled_while_it_reserves_leaves_no_hold(keeper: Keeper) -> None:
    ledger = keeper.open()
    cap = line(10, 10_000)
    await ledger.reserve(hold("first", cap))
    shared = line(10, 10_000, account=PROVIDER)
    tasks = [asyncio.create_task(ledger.reserve(hold(f"r{number}", cap, shared))) for number in range(60)]
    for turn in range(6):
        await asyncio.sleep(0)
        for task in tasks[turn * 10 : turn * 10 + 10]:
            task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [answer for answer in ended if isinstance(answer, list)]
    assert len(kept) < 60 or keeper.name == "memory"  # which never waits
    async with asyncio.timeout(5):
        while await figures(ledger, cap) != (0, 10 + 10 * len(kept)):
            pass
        while await figures(ledger, shared) != (0, 10 * len(kept)):
            pass


# Expiry


async def test_a_hold_nobody_settles_becomes_presumed_spend_with_a_record(ledger: Ledger, clock: Clock) -> None:
    lines = (line(100, 1000), line(1, 5, unit=Unit.REQUESTS), line(50, 500, unit=Unit.TOKENS))
    reservation = hold("a", *lines, line(100, 1000, account=PROVIDER))
    await ledger.reserve(reservation)
    clock.advance(119.9)
    assert await ledger.expire() == 0
    clock.advance(0.2)
    assert await ledger.expire() >= 1
    assert await ledger.expire() == 0
    assert [(b.spent, b.reserved) for b in await ledger.balances(reservation.lines)] == [
        (100, 0),
        (1, 0),
        (50, 0),
        (100, 0),
    ]
    assert [each for _, each in await ledger.outbox(10)] == [reservation.draft]


async def test_a_late_settlement_replaces_the_presumption(ledger: Ledger, clock: Clock) -> None:
    reservation = hold("a", line(100, 1000), line(50, 500, unit=Unit.TOKENS), line(100, 1000, account=PROVIDER))
    await ledger.reserve(reservation)
    clock.advance(200)
    await ledger.expire()
    assert await settle(ledger, reservation, 30, output_tokens=20) is Settlement.LATE
    assert [(b.spent, b.reserved) for b in await ledger.balances(reservation.lines)] == [(30, 0), (20, 0), (30, 0)]
    assert await settle(ledger, reservation, 30, output_tokens=20) is Settlement.AGAIN
    assert [(each.version, each.cost) for _, each in await ledger.outbox(10)] == [(0, 100), (1, 30)]


async def test_a_presumption_can_be_settled_a_week_later_in_its_own_window(ledger: Ledger, clock: Clock) -> None:
    week, day = line(100, 1000, window=Window(Every.MONTH)), line(100, 1000)
    reservation = hold("a", week, day)
    await ledger.reserve(reservation)
    clock.advance(200)
    await ledger.expire()
    clock.advance(7 * 86_400)
    await ledger.expire()
    assert await settle(ledger, reservation, 30) is Settlement.LATE
    assert await figures(ledger, week) == (30, 0)
    assert await figures(ledger, day) == (0, 0)


async def test_an_expired_hold_that_is_released_stays_presumed(ledger: Ledger, clock: Clock) -> None:
    reservation = hold("a", line(100, 1000))
    await ledger.reserve(reservation)
    clock.advance(200)
    await ledger.expire()
    await ledger.release(reservation)
    assert await figures(ledger, line(0, 1000)) == (100, 0)
    assert await settle(ledger, reservation, 0) is Settlement.LATE
    assert await figures(ledger, line(0, 1000)) == (0, 0)


async def test_a_hold_past_its_expiry_that_nobody_booked_yet_settles_in_time(ledger: Ledger, clock: Clock) -> None:
    reservation = hold("a", line(100, 1000))
    await ledger.reserve(reservation)
    clock.advance(200)
    assert await settle(ledger, reservation, 30) is Settlement.SETTLED
    assert await ledger.expire() == 0


async def test_an_extended_hold_expires_later(ledger: Ledger, clock: Clock) -> None:
    reservation = hold("a", line(100, 1000), line(100, 1000, account=PROVIDER))
    await ledger.reserve(reservation)
    clock.advance(100)
    assert await ledger.extend(reservation, 120)
    clock.advance(100)
    assert await ledger.extend(reservation, 1)
    clock.advance(19)
    assert await ledger.expire() == 0
    clock.advance(2)
    assert await ledger.expire() >= 1
    assert not await ledger.extend(reservation, 120)


async def test_a_hold_that_is_settled_or_unknown_cannot_be_extended(ledger: Ledger) -> None:
    assert not await ledger.extend(hold("a"), 10)
    await ledger.reserve(hold("a"))
    await settle(ledger, hold("a"), 0)
    assert not await ledger.extend(hold("a"), 10)


async def test_a_thousand_holds_expire_together(ledger: Ledger, clock: Clock) -> None:
    cap = line(3, 1_000_000)
    await asyncio.gather(*(ledger.reserve(hold(f"r{number}", cap)) for number in range(1000)))
    clock.advance(121)
    assert await ledger.expire() == 1000
    assert await figures(ledger, cap) == (3000, 0)
    assert len({each.id for _, each in await ledger.outbox(2000)}) == 1000


async def test_a_settlement_and_an_expiry_at_once_count_the_truth_once(keeper: Keeper) -> None:
    first, second = keeper.open(), keeper.open()
    cap = line(10, 10_000)
    holds = [hold(f"r{number}", cap) for number in range(40)]
    await asyncio.gather(*(first.reserve(each) for each in holds))
    keeper.clock.advance(121)
    answers = await asyncio.gather(*(settle(first, each, 4) for each in holds), second.expire())
    assert set(answers[:-1]) <= {Settlement.SETTLED, Settlement.LATE}
    await second.expire()
    assert await figures(second, cap) == (160, 0)
    final = {each.id: each.cost for _, each in sorted(await first.outbox(200), key=lambda entry: entry[1].version)}
    assert sum(cost or 0 for cost in final.values()) == 160


# Windows


async def test_a_new_day_is_a_new_budget_and_the_old_hold_belongs_to_the_old_day(ledger: Ledger, clock: Clock) -> None:
    clock.now = datetime(2026, 9, 16, 23, 59, 59, tzinfo=UTC).timestamp()
    cap = line(100, 100)
    await ledger.reserve(hold("a", cap))
    (balance,) = await ledger.balances([cap])
    assert balance.resets == datetime(2026, 9, 17, tzinfo=UTC).timestamp()
    clock.advance(1)
    await ledger.reserve(hold("b", cap))
    await settle(ledger, hold("a", cap), 70)
    assert await figures(ledger, cap) == (0, 100)
    clock.advance(-1)
    assert await figures(ledger, cap) == (70, 0)


@pytest.mark.parametrize(
    ("zone", "spring"),
    [
        ("Europe/Berlin", datetime(2024, 3, 31, tzinfo=ZoneInfo("Europe/Berlin"))),
        ("America/New_York", datetime(2024, 11, 3, tzinfo=ZoneInfo("America/New_York"))),
        ("Africa/Cairo", datetime(2024, 4, 26, tzinfo=ZoneInfo("Africa/Cairo"))),  # its midnight does not exist
    ],
)
async def test_a_day_of_23_or_25_hours_is_one_window(ledger: Ledger, clock: Clock, zone: str, spring: datetime) -> None:
    cap = line(60, 100, window=Window(Every.DAY, zone=ZoneInfo(zone)))
    (starts, ends) = (spring.timestamp(), (spring + timedelta(days=1)).timestamp())
    assert ends - starts in {23 * 3600, 25 * 3600}
    clock.now = starts
    await ledger.reserve(hold("a", cap, ttl_s=10**6))
    clock.now = ends - 0.001
    with pytest.raises(BudgetExceeded) as refused:
        await ledger.reserve(hold("b", cap))
    assert refused.value.retry_after_s == pytest.approx(0.001, abs=0.0005)
    clock.now = ends
    await ledger.reserve(hold("b", cap))


async def test_a_rolling_window_is_never_looser_than_it_says(ledger: Ledger, clock: Clock) -> None:
    cap = line(1, 5, window=ROLLING_HOUR)
    clock.now += 59.9
    granted: list[float] = []
    for number in range(150):
        try:
            await ledger.reserve(hold(f"r{number}", cap, ttl_s=10**6))
            granted.append(clock.now)
        except BudgetExceeded:
            pass
        clock.advance(97.3)
    for start in granted:
        assert len([at for at in granted if start <= at < start + 3600]) <= 5
    assert len(granted) >= 5 * int(150 * 97.3 / 3660)


async def test_a_rolling_window_forgets_settled_and_held_amounts_alike(ledger: Ledger, clock: Clock) -> None:
    cap = line(40, 100, window=ROLLING_HOUR)
    await ledger.reserve(hold("a", cap, ttl_s=10**6))
    await ledger.reserve(hold("b", cap, ttl_s=10**6))
    await settle(ledger, hold("a", cap), 30)
    assert await figures(ledger, cap) == (30, 40)
    clock.advance(3661)
    assert await figures(ledger, cap) == (0, 0)
    await ledger.reserve(hold("c", line(100, 100, window=ROLLING_HOUR), ttl_s=10**6))
    await settle(ledger, hold("b", cap), 40)
    assert await figures(ledger, cap) == (0, 100)


async def test_a_clock_that_steps_back_does_not_make_room(ledger: Ledger, clock: Clock) -> None:
    lines = (line(100, 100), line(100, 100, window=ROLLING_HOUR))
    await ledger.reserve(hold("a", *lines))
    clock.advance(-1800)
    for each in lines:
        with pytest.raises(BudgetExceeded):
            await ledger.reserve(hold("b", each))


async def test_a_new_budget_on_an_account_with_lifetime_spend_starts_empty(ledger: Ledger) -> None:
    await ledger.reserve(hold("a", line(900, 1000, window=TOTAL)))
    await settle(ledger, hold("a", line(0, 1000, window=TOTAL)), 900)
    await ledger.reserve(hold("b", line(100, 100, window=DAY)))


# Outbox


async def test_records_wait_until_they_are_acknowledged(keeper: Keeper) -> None:
    ledger = keeper.open()
    rich = draft("r0", tags={"feature": "search"}, tokens={"input": 7}, components={"input": 3}, flags=("odd",), cost=3)
    for number in range(5):
        each = hold(f"r{number}")
        await ledger.reserve(each)
        await ledger.settle(each, Spent(3), rich if number == 0 else record(each, number))
    waiting = await ledger.outbox(3)
    assert [each.id for _, each in waiting] == ["r0", "r1", "r2"]
    assert waiting[0][1] == rich
    assert await ledger.outbox(3) == waiting
    await ledger.ack([token for token, _ in waiting])
    await ledger.ack([waiting[0][0]])
    assert [each.id for _, each in await keeper.open().outbox(10)] == ["r3", "r4"]
    await ledger.ack([])


async def test_a_ledger_that_can_serve_answers_a_ping(ledger: Ledger) -> None:
    await ledger.ping()

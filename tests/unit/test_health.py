"""The circuit of a deployment, its retry budget and its slow start: events at times, and what holds after them."""

from __future__ import annotations

import pytest

from gateway.health import (
    COOLDOWN_MAX_S,
    COOLDOWN_S,
    IN_A_ROW,
    RAMP_FROM,
    RAMP_S,
    RETRY_SHARE,
    SLOW_MIN_MS,
    Condition,
    Health,
)

FAIL, OK, CALL = "fail", "ok", "call"
Event = tuple[float, str]


def played(events: list[Event]) -> Condition:
    condition = Condition()
    for at, what in events:
        if what == CALL:
            condition.began(at)
        elif what == OK:
            condition.succeeded(at, 100.0, 10, 1.0)
        else:
            condition.failed(at, float(what.removeprefix(FAIL)) if what != FAIL else None)
    return condition


def fails(count: int, at: float = 100.0) -> list[Event]:
    return [(at + number * 0.01, FAIL) for number in range(count)]


OPEN_AT = 100.0 + (IN_A_ROW - 1) * 0.01
HALF_OPEN_AT = OPEN_AT + COOLDOWN_S


@pytest.mark.parametrize(
    ("events", "at", "admits"),
    [
        ([], 100.0, True),
        (fails(IN_A_ROW - 1), 100.1, True),
        (fails(IN_A_ROW), 100.1, False),
        (fails(IN_A_ROW), HALF_OPEN_AT - 0.01, False),
        (fails(IN_A_ROW), HALF_OPEN_AT + 0.01, True),  # the probe
        ([*fails(IN_A_ROW), (HALF_OPEN_AT, CALL)], HALF_OPEN_AT + 0.01, False),  # one probe at a time
        ([*fails(IN_A_ROW), (HALF_OPEN_AT, CALL)], HALF_OPEN_AT + COOLDOWN_S, True),  # a probe that nobody ended
        ([*fails(IN_A_ROW), (HALF_OPEN_AT, CALL), (HALF_OPEN_AT + 1, OK)], HALF_OPEN_AT + 1, True),
        ([*fails(IN_A_ROW), (HALF_OPEN_AT, CALL), (HALF_OPEN_AT + 1, FAIL)], HALF_OPEN_AT + 1 + COOLDOWN_S, False),
        ([*fails(IN_A_ROW), (HALF_OPEN_AT, CALL), (HALF_OPEN_AT + 1, FAIL)], HALF_OPEN_AT + 2 + 2 * COOLDOWN_S, True),
        ([*fails(IN_A_ROW), (101.0, OK)], 101.0, False),  # an answer to a call of before it opened
        ([(100.0 + n, FAIL if n % 2 else OK) for n in range(20)], 119.5, False),  # half of them
        ([(100.0 + n, FAIL if n % 4 == 0 else OK) for n in range(40)], 140.0, True),  # a quarter
        ([(1000.0 * n, FAIL) for n in range(1, 9)], 8000.0, True),  # long ago each
        ([(100.0, "fail40")], 139.0, False),  # the provider's own word
        ([(100.0, "fail40")], 140.1, True),
        ([(100.0, "fail9999")], 100.0 + COOLDOWN_MAX_S + 0.1, True),  # nobody is believed for hours
    ],
)
def test_a_circuit_admits_a_call(events: list[Event], at: float, *, admits: bool) -> None:
    assert played(events).circuit.admits(at) is admits


def test_the_cooldown_doubles_up_to_a_bound_and_starts_anew_after_a_success() -> None:
    condition, now, waits = played(fails(IN_A_ROW)), OPEN_AT, []
    for _ in range(8):
        now += condition.circuit.wait_s(now) + 0.001
        condition.began(now)
        condition.failed(now)
        waits.append(round(condition.circuit.wait_s(now)))
    assert waits == [10, 20, 40, 80, 120, 120, 120, 120]
    now += condition.circuit.wait_s(now) + 0.001
    condition.began(now)
    condition.succeeded(now, 100.0, 1, 1.0)
    for number in range(IN_A_ROW):
        condition.failed(now + number)
    assert round(condition.circuit.wait_s(now + IN_A_ROW - 1)) == COOLDOWN_S


def test_a_deployment_that_recovered_takes_its_load_gradually() -> None:
    condition = played([*fails(IN_A_ROW), (HALF_OPEN_AT, CALL), (HALF_OPEN_AT + 1, OK)])
    began = HALF_OPEN_AT + 1
    shares = [condition.circuit.share(began + part * RAMP_S) for part in (0.0, 0.5, 1.0, 2.0)]
    assert shares == [pytest.approx(RAMP_FROM), pytest.approx((1 + RAMP_FROM) / 2), 1.0, 1.0]


def test_a_slow_deployment_is_asked_last_and_not_shut_out() -> None:
    condition = Condition()
    for at in range(5):
        condition.succeeded(100.0 + at, 200.0, 10, 1.0)
    for at in range(8):
        condition.succeeded(105.0 + at, SLOW_MIN_MS + 1, 10, 1.0)
    assert not condition.healthy(113.0)
    assert condition.circuit.admits(113.0)
    for at in range(20):
        condition.succeeded(113.0 + at, 200.0, 10, 1.0)
    assert condition.healthy(133.0)


def test_a_deployment_that_says_nothing_any_more_is_asked_last_before_its_first_call_has_timed_out() -> None:
    condition = Condition()
    for number in range(100):
        condition.began(100.0 + number * 0.01)
        condition.succeeded(100.0 + number * 0.01, 20.0, 10, 1.0)
        condition.ended()
    for number in range(200):
        condition.began(101.0 + number * 0.01)
    assert condition.healthy(101.5)
    assert not condition.healthy(102.1)
    assert condition.circuit.admits(102.1)
    condition.succeeded(102.2, 1200.0, 10, 1.0)
    assert condition.healthy(102.3)


def test_few_calls_that_take_long_are_no_silence() -> None:
    condition = Condition()
    condition.began(100.0)
    condition.succeeded(100.1, 20.0, 10, 1.0)
    for number in range(5):
        condition.began(101.0 + number)
    assert condition.healthy(130.0)


def test_a_long_whole_answer_is_not_a_slow_one() -> None:
    condition = Condition()
    for at in range(20):
        condition.succeeded(100.0 + at, 60_000.0 if at > 5 else 100.0, 10, 1.0, stream=False)
    assert condition.healthy(120.0)


def test_retries_are_a_tenth_of_recent_requests() -> None:
    condition, retried = Condition(), 0
    for number in range(1000):
        condition.failed(100.0 + number * 0.005)
        retried += condition.retries(100.0 + number * 0.005)
    assert retried <= 2 + RETRY_SHARE * 1000
    assert retried >= 0.5 * RETRY_SHARE * 1000


def test_a_lone_request_may_be_retried_twice() -> None:
    condition = Condition()
    assert [condition.retries(100.0) for _ in range(3)] == [True, True, False]
    assert condition.retries(200.0)


def test_what_one_worker_finds_another_hears() -> None:
    one, other = Health(), Health()
    for _ in range(IN_A_ROW):
        one.of("a").failed(100.0)
    told = one.opened(101.0)
    assert told == {"a": pytest.approx(COOLDOWN_S - 1)}
    other.heard(500.0, told)
    assert not other.of("a").circuit.admits(500.0)
    assert other.of("a").circuit.admits(500.0 + COOLDOWN_S)
    assert one.opened(100.0 + COOLDOWN_S) == {}


def test_an_echo_does_not_keep_a_circuit_open() -> None:
    one, other = Health(), Health()
    for _ in range(IN_A_ROW):
        one.of("a").failed(100.0)
    for at in (100.0, 102.0, 104.0):
        other.heard(at, one.opened(at))
        one.heard(at, other.opened(at))
    assert one.of("a").circuit.until == pytest.approx(100.0 + COOLDOWN_S)

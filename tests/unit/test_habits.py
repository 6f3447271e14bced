from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.habits import CACHED_MIN, TALKS_MAX, TTL_S, UNKNOWN, Habits, prefixes
from gateway.plan import Plan, Step, Talk
from gateway.types import Bucket, Deployment, Estimate, Format, Key, Price, Provider, Request, Usage

PROVIDER = Provider("p", "simulated")
RATES = {Bucket.INPUT: 10**10, Bucket.CACHE_READ: 10**9, Bucket.OUTPUT: 10**10}
CACHING = Deployment("caching", PROVIDER, "m", Price(RATES))
CHARGING = Deployment("charging", PROVIDER, "m", Price({**RATES, Bucket.CACHE_WRITE_5M: 12 * 10**9}))
FORGETFUL = Deployment("forgetful", PROVIDER, "m", Price({Bucket.INPUT: 10**10, Bucket.OUTPUT: 10**10}))
SYSTEM = {"role": "system", "content": "You are terse. " * 300}


def asked(*turns: str, at: float = 0.0, system: bool = True, **body: Any) -> Request:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]
    body["messages"] = [SYSTEM, *messages] if system else messages
    return Request("r", Format.CHAT, b"", body, "auto", stream=False, received=at, key=Key("k", "a", "n", b""))


def used(fresh: int, cached: int = 0, output: int = 100, reasoning: int = 0, **more: int) -> Usage:
    tokens = {Bucket.INPUT: fresh, Bucket.CACHE_READ: cached, Bucket.OUTPUT: output, Bucket.REASONING: reasoning}
    tokens |= {Bucket(name): count for name, count in more.items()}
    return Usage({bucket: count for bucket, count in tokens.items() if count})


def test_a_conversation_is_expected_to_be_cached_where_it_was_read_and_nowhere_else() -> None:
    habits = Habits()
    habits.learn(asked("one"), CACHING, used(2000), None, "")
    habits.learn(asked("two"), CACHING, used(1, 2000), None, "")  # the instructions were cached: all of them
    expected = habits.cached(asked("two", "yes?", "three", at=10.0), 10.0)
    assert expected == {"caching": 2001}


def test_until_a_deployment_has_reported_half_of_what_it_should_hold_is_expected() -> None:
    habits = Habits()
    habits.learn(asked("one"), CACHING, used(2000), None, "")
    assert habits.cached(asked("one", "yes?", "two"), 1.0) == {"caching": 1000}


def test_a_deployment_that_reports_no_cache_hits_is_soon_expected_to_have_none() -> None:
    habits = Habits()
    for turn in range(12):
        habits.learn(asked("one", at=float(turn)), CACHING, used(2000), None, "")
    assert habits.cached(asked("one", at=12.0), 12.0) == {"caching": 0}


@pytest.mark.parametrize(("seconds", "held"), [(TTL_S - 1, True), (TTL_S + 1, False)])
def test_what_was_read_too_long_ago_is_forgotten(seconds: float, held: bool) -> None:
    habits = Habits()
    habits.learn(asked("one"), CACHING, used(2000), None, "")
    assert bool(habits.cached(asked("one", "yes?", "two"), seconds)) is held


def test_a_cache_paid_for_an_hour_is_expected_to_last_an_hour() -> None:
    habits = Habits()
    habits.learn(asked("one"), CHARGING, used(10, cache_write_1h=1990), None, "")
    assert habits.cached(asked("one", "yes?", "two"), 3599.0)
    assert not habits.cached(asked("one", "yes?", "two"), 3601.0)


def test_whoever_charges_for_writing_holds_nothing_that_was_not_written() -> None:
    habits = Habits()
    habits.learn(asked("one"), CHARGING, used(2000), None, "")
    assert habits.cached(asked("one"), 1.0) == {}


def test_a_deployment_without_a_price_for_cached_tokens_is_never_expected_to_have_any() -> None:
    habits = Habits()
    habits.learn(asked("one"), FORGETFUL, used(2000), None, "")
    assert habits.cached(asked("one"), 1.0) == {}


def test_short_prompts_are_not_remembered_because_no_provider_caches_them() -> None:
    habits = Habits()
    habits.learn(asked("one"), CACHING, used(CACHED_MIN - 1), None, "")
    assert habits.cached(asked("one"), 1.0) == {}


def test_another_conversation_with_the_same_instructions_shares_only_those() -> None:
    habits = Habits()
    habits.learn(asked("a" * 4500), CACHING, used(4000), None, "")
    (expected,) = habits.cached(asked("b" * 4500), 1.0).values()
    assert expected == 1000  # half of the instructions, which are half of the text


def test_another_beginning_shares_nothing() -> None:
    habits = Habits()
    habits.learn(asked("one", system=False), CACHING, used(2000), None, "")
    assert habits.cached(asked("two", "yes?", "one", system=False), 1.0) == {}


def test_a_cache_mark_that_moves_on_does_not_make_it_another_conversation() -> None:
    marked = {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
    plain = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    assert prefixes({"messages": [marked]}) == prefixes({"messages": [plain]})


@pytest.mark.parametrize("body", [{}, {"messages": 7}, {"messages": [None, 1.5, True]}, {"input": "text"}])
def test_any_body_has_prefixes(body: dict[str, Any]) -> None:
    assert len(prefixes(body)) <= 3


def test_a_body_nested_without_end_is_not_looked_into() -> None:
    deep: Any = "bottom"
    for _ in range(900):
        deep = [deep]
    assert len(prefixes({"messages": [deep]})) == 1


def test_what_is_remembered_has_a_bound() -> None:
    habits = Habits(prefixes_max=10)
    for number in range(100):
        habits.learn(asked(f"{number}", system=False), CACHING, used(2000), None, "")
    assert sum(bool(habits.cached(asked(f"{number}", system=False), 1.0)) for number in range(100)) == 10


def test_tokens_of_answers_are_learned_for_each_effort_and_task() -> None:
    habits = Habits()
    habits.learn(asked("one"), CACHING, used(10, output=50), "none", "chat")
    habits.learn(asked("one"), CACHING, used(10, output=60, reasoning=900), "high", "maths")
    assert habits.talks("caching") == {
        ("chat", "none"): Talk(50, 0),
        ("", "none"): Talk(50, 0),
        ("maths", "high"): Talk(60, 900),
        ("", "high"): Talk(60, 900),
    }


def test_the_effort_a_client_asks_for_is_learned_as_such() -> None:
    habits = Habits()
    habits.learn(asked("one", reasoning_effort="low"), CACHING, used(10, output=5, reasoning=7), None, "")
    assert habits.talks("caching") == {("", "low"): Talk(5, 7)}


def test_a_deployment_that_has_not_answered_yet_is_expected_to_say_as_much_as_others_do() -> None:
    habits = Habits()
    assert habits.typical("") == Talk(300)
    habits.learn(asked("one"), CACHING, used(10, output=50, reasoning=900), None, "")
    assert habits.typical("") == Talk(50)


def test_several_answers_to_one_request_teach_the_length_of_one() -> None:
    habits = Habits()
    habits.learn(asked("one", n=4), CACHING, used(10, output=400), None, "")
    assert habits.talks("caching") == {("", ""): Talk(100, 0)}


def step(**more: Any) -> Step:
    return Step(CACHING, Estimate(100, 120), output_cap=1000, output_expected=300, at=0.0, **more)


def test_a_step_asked_to_think_harder_expects_the_tokens_such_answers_had() -> None:
    talks = {("", "high"): Talk(50, 800), ("", "low"): Talk(40, 20)}
    low, high = (step(talks=talks).thinking(effort) for effort in ("low", "high"))
    assert (low.effort, low.output_expected, low.reasoning_expected) == ("low", 40, 20)
    assert high.expected_cost == (100 + 50 + 800) * 10_000
    assert low.expected_cost == (100 + 40 + 20) * 10_000


def test_reasoning_and_answer_share_one_cap() -> None:
    capped = step(talks={("", "high"): Talk(500, 800)}).thinking("high").capped(900)
    assert (capped.reasoning_expected, capped.output_expected) == (800, 100)


def test_a_plan_known_to_be_for_a_task_expects_answers_like_those_to_such_tasks() -> None:
    plan = Plan((step(talks={("code", ""): Talk(700)}),)).classified("code", "hard")
    assert (plan.task, plan.level, plan.steps[0].output_expected) == ("code", "hard", 700)
    other = Plan((step(talks={("code", ""): Talk(700)}),)).classified("chat", "easy")
    assert other.steps[0].output_expected == 300


def test_habits_told_and_recalled_are_the_same_and_what_was_learned_since_counts_more() -> None:
    habits = Habits()
    habits.learn(asked("one"), CACHING, used(2000, output=90, reasoning=30), "low", "law")
    habits.learn(asked("two"), CACHING, used(1, 2000), None, "")
    told = habits.told()
    assert json.loads(json.dumps(told)) == told
    again = Habits()
    again.learn(asked("one"), CACHING, used(2000, output=7), None, "")
    again.recall("caching", told["caching"])
    assert again.talks("caching")["law", "low"] == Talk(90.0, 30.0)
    assert again.talks("caching")["", ""] == Talk(7.0)
    assert again.told()["caching"]["cached_share"] == told["caching"]["cached_share"]


def test_what_is_typical_follows_every_answer_and_keeps_no_more_words_than_it_may() -> None:
    habits = Habits()
    for number in range(2 * TALKS_MAX):
        assert habits.typical(f"word {number}") == UNKNOWN
    assert len(habits._typical) == TALKS_MAX
    habits.learn(asked("one"), CACHING, used(10, output=50), "none", "")
    assert habits.typical("none").visible == 50
    habits.learn(asked("one"), replace(CACHING, id="other"), used(10, output=150), "none", "")
    assert habits.typical("none").visible == 100

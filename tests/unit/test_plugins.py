from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from gateway import plugins
from gateway.plan import Context, Plan
from gateway.plugins import PluginError
from gateway.types import Request
from router_policies.output_cap import OutputCap


@dataclass(frozen=True, slots=True)
class Picky:
    target: float
    most: int = 10
    words: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target > 1:
            raise ValueError("target must be at most 1")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:
        return plan


@dataclass(frozen=True)
class NoPolicy:
    pass


def told(options: Mapping[str, object]) -> list[tuple[str | None, str]]:
    return [(error.option, str(error)) for error in plugins.option_problems("picky", Picky, options)]


def test_a_policy_is_found_by_its_entry_point_and_made_from_its_options() -> None:
    assert plugins.policy("output_cap", {"default": 1024, "max": 8192}) == OutputCap(1024, 8192)


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(PluginError, match="unknown policy 'cheepest'; did you mean 'cheapest'"):
        plugins.policy("cheepest", {})


def test_an_unknown_dialect_names_the_known_ones() -> None:
    with pytest.raises(PluginError, match=r"unknown dialect 'zzz'; known: .*simulated"):
        plugins.dialect("zzz")


def test_every_wrong_option_is_told_at_once_with_its_type() -> None:
    problems = dict(told({"targt": 0.5, "most": "many", "words": {"easy": 3}}))
    assert problems["targt"] == "policy 'picky' has no such option; did you mean 'target'?"
    assert problems[None] == "policy 'picky' needs the option 'target' (float)"
    assert (problems["most"] or "").startswith("must be int:")
    assert "must be" in (problems["words"] or "")


def test_right_options_have_no_problem_and_take_their_type() -> None:
    assert told({"target": 1, "words": {"easy": "none"}}) == []
    made = plugins.make("picky", Picky, {"target": "0.5", "most": "3"})
    assert made == Picky(0.5, 3)


def test_what_the_policy_itself_refuses_is_told() -> None:
    with pytest.raises(PluginError, match="target must be at most 1"):
        plugins.make("picky", Picky, {"target": 2})


def test_a_class_that_cannot_plan_is_no_policy() -> None:
    with pytest.raises(PluginError, match="no apply method"):
        plugins.make("none", NoPolicy, {})
    assert "not a dataclass" in str(plugins.option_problems("int", int, {})[0])


def test_a_wrong_option_of_a_real_policy_is_an_error() -> None:
    with pytest.raises(PluginError) as refused:
        plugins.policy("output_cap", {"defualt": 5})
    assert refused.value.option == "defualt"
    problems = plugins.policy_or_problems("output_cap", {"defualt": 5, "max": "x"})
    assert isinstance(problems, list)
    assert {error.option for error in problems} == {"defualt", "max"}

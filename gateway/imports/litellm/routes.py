"""Groups, aliases, strategies and fallbacks as routes.

A group of one deployment that falls back on nothing becomes a deployment of that name; every other a route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.imports.base import Draft, Section, plain
from gateway.imports.litellm.models import Member

DEPTH_MAX = 5
"""LiteLLM follows fallbacks of fallbacks so far."""
DRAWN = {
    "simple-shuffle": "",
    "least-busy": "goes to deployments in turn of their weights, not by how busy they are",
    "usage-based-routing": "goes to deployments by their weights, rpm or tpm; those are limits here as well",
    "usage-based-routing-v2": "goes to deployments by their weights, rpm or tpm; those are limits here as well",
}
"""Strategies that become a draw by weight, and what is different."""
SORTED: dict[str, dict[str, Any]] = {
    "latency-based-routing": {"arbitrage": {"price": 0, "latency": 1}},
    "cost-based-routing": {"cheapest": {}},
}


@dataclass(slots=True)
class Fallbacks:
    """Which groups stand in for which."""

    named: dict[str, list[str]] = field(default_factory=dict)
    default: list[str] = field(default_factory=list)
    filtered: set[str] = field(default_factory=set)  # groups that move on when a provider's filter refuses

    def read(self, section: Section, name: str) -> list[str]:
        """Adds a list of `{group: [groups]}`; the groups it is about."""
        found = []
        for entry in section.entries(name):
            for asked in list(entry.value):
                self.named.setdefault(asked, []).extend(entry.names(asked))
                found.append(asked)
        return found

    def of(self, group: str) -> list[str]:
        """Every group that stands in for this one, nearest first."""
        found: list[str] = []
        front = [group]
        for _ in range(DEPTH_MAX):
            front = [name for one in front for name in self.named.get(one, self.named.get("*", self.default))]
            front = [name for name in dict.fromkeys(front) if name not in found and name != group]
            found += front
        return found


@dataclass(slots=True)
class Routes:
    """Names deployments and says how each group chooses among them."""

    draft: Draft
    groups: Mapping[str, list[Member]]
    fallbacks: Fallbacks
    strategy: str
    policies: dict[str, list[str]] = field(default_factory=dict)

    def place(self, settings: Section) -> None:
        """Writes `deployments` and `routes`."""
        self._check(settings)
        routes: dict[str, Any] = {}
        taken: set[str] = set(self.groups)
        for name, members in self.groups.items():
            plain_group = len(members) == 1 and not self._behind(name) and members[0].answer_tokens is None
            for member in members:
                member.id = name if plain_group else _free(member.id or f"{name}@{member.provider}", taken)
                taken.add(member.id)
        for name, members in self.groups.items():
            if members[0].id != name:
                routes[name] = self._route(name, members)
        for alias, target in self._aliases(settings).items():
            routes[alias] = routes[target] if target in routes else {"candidates": [self.groups[target][0].id]}
        self.draft.sections["deployments"] = [
            {"id": member.id, **member.shape} for members in self.groups.values() for member in members
        ]
        self.draft.sections["routes"] = {name: dict(route) for name, route in routes.items()}

    def _check(self, settings: Section) -> None:
        for asked, behind in [*self.fallbacks.named.items(), ("*", self.fallbacks.default)]:
            for name in dict.fromkeys([*behind, *([asked] if asked != "*" else [])]):
                if name not in self.groups:
                    self.draft.note(
                        settings.path, f"a fallback names {name!r}, which is no model here; it is left out of it"
                    )
        if self.strategy not in {*DRAWN, *SORTED}:
            self.draft.note(
                (*settings.path, "routing_strategy"),
                f"{self.strategy!r} is not known here; deployments are drawn by weight",
            )

    def _behind(self, group: str) -> list[Member]:
        mode = self.groups[group][0].mode
        stand_ins = [member for name in self.fallbacks.of(group) for member in self.groups.get(name, ())]
        return [member for member in stand_ins if member.mode == mode]

    def _route(self, name: str, members: list[Member]) -> dict[str, Any]:
        behind = self._behind(name)
        route: dict[str, Any] = {"candidates": list(dict.fromkeys(member.id for member in (*members, *behind)))}
        answers = [member.answer_tokens for member in members]
        policies: list[dict[str, Any]] = []
        if all(answers):
            policies.append({"output_cap": {"default": max(tokens for tokens in answers if tokens)}})
        elif any(answers):
            self.draft.note(
                members[0].section.path,
                f"max_tokens of some deployments of {name!r} is not carried over: add output_cap",
            )
        if behind and self.fallbacks.filtered & {name, "*"}:
            route["failover_on"] = ["content_filter"]
        policies += self._ways(name, members, behind)
        return route | ({"policies": policies} if policies else {})

    def _ways(self, name: str, members: list[Member], behind: list[Member]) -> list[dict[str, Any]]:
        ordered = any(member.order is not None for member in members)
        if self.strategy in SORTED and not behind and not ordered:
            return [SORTED[self.strategy]] if len(members) > 1 else []
        if self.strategy in SORTED and len(members) > 1:
            words = (
                f"{name!r} has fallbacks or an order, so its deployments are drawn by weight and not by {self.strategy}"
            )
            self.draft.note(members[0].section.path, words)
        elif len(members) > 1 and DRAWN.get(self.strategy):
            self.draft.note(members[0].section.path, f"{self.strategy}: {name!r} {DRAWN[self.strategy]}")
        first = sorted(members, key=lambda member: member.order if member.order is not None else Decimal(1))
        order = list(dict.fromkeys(member.id for member in (*first, *behind)))
        ways: list[dict[str, Any]] = [{"fallback": {"order": order}}] if behind or ordered else []
        if len(members) > 1 and not ordered:
            ways.append({"weighted": {"weights": _weights(members)}})
        return ways

    def _aliases(self, settings: Section) -> dict[str, str]:
        found: dict[str, str] = {}
        aliases = settings.section("model_group_alias")
        for alias in list(aliases.value):
            value = aliases.take(alias)
            target = value.get("model") if isinstance(value, dict) else value
            if str(target) in self.groups and alias not in self.groups:
                found[alias] = str(target)
            else:
                aliases.note(alias, f"stands for {target!r}, which is no model here, or is one itself; left out")
        return found


def _weights(members: list[Member]) -> dict[str, int | float]:
    """By weight, else by requests, else by tokens a minute, where all have them; else evenly: as LiteLLM does."""
    for figures in (
        [member.weight for member in members],
        [member.requests_per_minute for member in members],
        [member.tokens_per_minute for member in members],
    ):
        known = [figure for figure in figures if figure is not None]
        if len(known) == len(members) and any(known):
            return {member.id: plain(Decimal(figure)) for member, figure in zip(members, known, strict=True)}
    return {member.id: 1 for member in members}


def _free(wanted: str, taken: set[str]) -> str:
    """A name nobody has."""
    number = 1
    name = wanted[:120]
    while name in taken:
        number += 1
        name = f"{wanted[:120]}-{number}"
    return name

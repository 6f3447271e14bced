"""The nouns of a limit: what it is kept for, what it counts, over which time, and what a full one does."""

from __future__ import annotations

from datetime import UTC, tzinfo
from enum import StrEnum

from msgspec import Struct


class Action(StrEnum):
    """What a full budget does."""

    DENY = "deny"
    DEGRADE = "degrade"
    ALERT = "alert"


DENY, DEGRADE, ALERT = Action
"""By names of their own where every request asks: an attribute of an enumeration costs as much as ten of a struct."""


class Unit(StrEnum):
    """What a limit counts."""

    COST = "cost"  # NanoUSD
    REQUESTS = "requests"
    TOKENS = "tokens"  # in and out
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CONCURRENT = "concurrent"  # requests in flight


COST, REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, CONCURRENT = Unit  # likewise


class Every(StrEnum):
    """The calendar lengths of a window."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    TOTAL = "total"  # never resets


class Window(Struct, frozen=True):
    """Calendar (`every`, in `zone`) or rolling (`rolling_s` seconds; `every` is then ignored)."""

    every: Every = Every.TOTAL
    rolling_s: int = 0
    zone: tzinfo = UTC

    def __str__(self) -> str:
        return f"rolling_{self.rolling_s}s" if self.rolling_s else str(self.every)


class Account(Struct, frozen=True, gc=False):
    """What a limit is kept for: (tenant, acme), (key, k_1), (user, u7) ...  `tenant` owns it; "" when none does."""

    kind: str
    id: str
    tenant: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


STEP_KINDS = frozenset({"deployment", "provider"})  # accounts that only some steps of a plan may use
ORGANISATION = "organisation"  # the tag that says where a tenant belongs; only its own tags are believed


class Limit(Struct, frozen=True):
    """At most `amount` of `unit` per window for one kind of account: a budget (COST) or a rate limit."""

    account: str  # kind: tenant, key, user, task, model, deployment, provider, organisation, global, team, tag:NAME
    unit: Unit
    amount: int
    window: Window
    action: Action = Action.DENY
    id: str = ""  # stable name for the admin API
    of: str = ""  # only this account of the kind, in place of the limits for all of them
    until: float | None = None  # unix seconds after which it no longer holds
    since: float | None = None  # before which it does not hold yet: another stands in its place

"""Which limits one request counts against, and with how much.  Pure.

A limit of a tenant or key is kept for accounts of that tenant; a limit of everyone for accounts that span tenants, or
as a template for each tenant, key, user ...  A limit `of` one account takes the place of the templates beside it that
have its kind of account, unit and window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Protocol

from msgspec.structs import replace

from gateway.ledger.base import Line
from gateway.plan import Plan, Step
from gateway.types import (
    COST,
    DENY,
    INPUT_TOKENS,
    ORGANISATION,
    OUTPUT_TOKENS,
    STEP_KINDS,
    TOKENS,
    Account,
    Action,
    Deployment,
    Key,
    Limit,
    Request,
    Tenant,
    Unit,
)

SPANNING = frozenset({"global", "organisation", "provider", "deployment", "model"})
"""Accounts that a limit of everyone keeps for all tenants together; tags too."""

Amounts = tuple[int, Plan]
"""The most money, and of whom the most tokens are asked where a limit counts them."""


class Asked(Protocol):
    """What of a request says which accounts it belongs to."""

    @property
    def key(self) -> Key: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def user(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def model(self) -> str: ...


def lines(request: Request, tenant: Tenant, everyone: Iterable[Limit], plan: Plan) -> tuple[Line, ...]:
    """A line per account that each limit of the tenant, the key and `everyone` has for this request."""
    amounts = _amounts(plan)
    found = _level(tenant.limits, tenant.id, request, tenant, plan, amounts)
    if request.key.limits:
        found += _level(request.key.limits, tenant.id, request, tenant, plan, amounts)
    if everyone:
        found += _level(everyone, "", request, tenant, plan, amounts)
    return tuple(found)


def capped(request: Request, tenant: Tenant, everyone: Iterable[Limit], deployment: Deployment) -> bool:
    """Whether a hard limit of money holds for this request on this deployment."""
    for owner, limits in ((tenant.id, tenant.limits), (tenant.id, request.key.limits), ("", everyone)):
        for limit in limits:
            if limit.unit is COST and limit.action is DENY and holds(limit, request.received):
                if limit.account in STEP_KINDS:
                    id_: str | None = _served_by(limit.account, deployment)
                else:
                    account = account_of(limit.account, owner, request, tenant)
                    id_ = None if account is None else account.id
                if id_ is not None and limit.of in ("", id_):
                    return True
    return False


def refuses_without_ledger(found: Iterable[Line], tenant: Tenant) -> bool:
    """Whether the request must wait for the ledger to come back."""
    if tenant.on_ledger_outage == "refuse_if_capped":
        return any(line.limit.unit is COST and line.limit.action is DENY for line in found)
    return tenant.on_ledger_outage != "pass"


def without(plan: Plan, account: str) -> Plan:
    """The steps that do not need `account`, "deployment gpt-mini" say, which has no room."""

    def elsewhere(step: Step) -> bool:
        return account not in {f"{kind} {_served_by(kind, step.deployment)}" for kind in STEP_KINDS}

    return plan.only(elsewhere, f"the limit of {account} has no room for it")


def holds(limit: Limit, now: float) -> bool:
    """Whether the limit is in force at that moment."""
    return (limit.until is None or now < limit.until) and (limit.since is None or now >= limit.since)


def in_force(written: Iterable[Limit], stored: Iterable[Limit]) -> tuple[Limit, ...]:
    """The limits of everyone: those written in the file as far as they hold beside those an administrator made."""
    made = tuple(stored)
    return (*beside(made, written), *made)


def beside(stored: Iterable[Limit], written: Iterable[Limit]) -> Iterator[Limit]:
    """What is left of the limits `written` in the file: one that was made for the same accounts, unit, window and
    action takes its place, and where that ends it holds again."""
    ends: dict[object, float] = {}
    for limit in stored:
        end = inf if limit.until is None else limit.until
        ends[_what(limit)] = max(end, ends.get(_what(limit), end))
    for limit in written:
        end = ends.get(_what(limit), 0.0)
        if end < inf:
            yield replace(limit, since=end) if end else limit


def account_of(kind: str, owner: str, request: Asked, tenant: Tenant) -> Account | None:
    """The account of one kind that this request belongs to; None when it names none (no user, no such tag).

    `owner`: the tenant whose limit it is, or "" for everyone's.
    """
    if kind == "tenant":
        return Account(kind, tenant.id, tenant.id)
    if kind == "global":
        return Account("global", "all")
    if kind == ORGANISATION:
        organisation = tenant.tags.get(ORGANISATION)
        return Account(kind, organisation) if organisation else None
    if kind.startswith("tag:"):
        value = request.tags.get(kind[4:])
        return Account(kind, value, owner) if value else None
    id_ = {
        "key": request.key.id,
        "user": request.user,
        "task": request.task,
        "model": request.model,
    }.get(kind, request.tags.get(kind, ""))
    return Account(kind, id_, owner if kind in SPANNING else tenant.id) if id_ else None


def shared_lines(
    tenants: Iterable[Tenant], everyone: Iterable[Limit], deployments: Iterable[Deployment] = (), *, now: float
) -> list[Line]:
    """The limits now of the few accounts that may be labels of gauges: tenants, deployments, providers and everyone."""
    places, payers = list(deployments), list(tenants)
    levels = [(tenant.id, tenant.limits, [tenant]) for tenant in payers]
    return [
        Line(account, limit, 0)
        for owner, limits, whose in [*levels, ("", everyone, payers)]
        for limit in limits
        for account in _shown(limit.account, owner, whose, places)
        if limit.of in ("", account.id) and holds(limit, now)
    ]


def _shown(kind: str, owner: str, tenants: list[Tenant], places: list[Deployment]) -> list[Account]:
    if kind == "global":
        return [Account("global", "all")]
    if kind == "tenant":
        return [Account(kind, tenant.id, tenant.id) for tenant in tenants]
    if kind == ORGANISATION:
        names = {tenant.tags[kind] for tenant in tenants if tenant.tags.get(kind)}
        return [Account(kind, name) for name in sorted(names)]
    if kind in STEP_KINDS:
        return [Account(kind, id_, owner) for id_ in sorted({_served_by(kind, place) for place in places})]
    return []


def _level(
    limits: Iterable[Limit], owner: str, request: Request, tenant: Tenant, plan: Plan, amounts: Amounts
) -> list[Line]:
    found: list[Line] = []
    known: dict[str, Account | None] = {}
    special = False
    for limit in limits:
        if not holds(limit, request.received):
            continue
        kind = limit.account
        if kind in STEP_KINDS:
            found += _by_step(limit, owner, plan)
            special = special or bool(limit.of)
            continue
        if kind in known:
            account = known[kind]
        else:
            account = known[kind] = account_of(kind, owner, request, tenant)
        if account is None:
            continue
        if limit.of:
            if limit.of != account.id:
                continue
            special = True
        found.append(Line(account, limit, _amount(limit.unit, amounts)))
    return _without_overridden(found) if special else found


def _by_step(limit: Limit, owner: str, plan: Plan) -> Iterator[Line]:
    """What each deployment or provider of the plan could be asked to serve, in its own account."""
    ids = dict.fromkeys(_served_by(limit.account, step.deployment) for step in plan.steps)
    for id_ in ids:
        if limit.of in ("", id_):
            steps = tuple(step for step in plan.steps if _served_by(limit.account, step.deployment) == id_)
            part = plan if len(ids) == 1 else replace(plan, steps=steps)
            yield Line(Account(limit.account, id_, owner), limit, _amount(limit.unit, _amounts(part)))


def _without_overridden(found: list[Line]) -> list[Line]:
    own = {_kept_for(line) for line in found if line.limit.of}
    return [line for line in found if line.limit.of or _kept_for(line) not in own]


def _kept_for(line: Line) -> tuple[Account, Unit, str]:
    return line.account, line.limit.unit, str(line.limit.window)


def _amounts(plan: Plan) -> Amounts:
    return plan.worst_cost or 0, plan


def _amount(unit: Unit, amounts: Amounts) -> int:
    cost, plan = amounts
    if unit is COST:
        return cost
    if unit is TOKENS:
        return plan.worst_tokens.all
    if unit is INPUT_TOKENS:
        return plan.worst_tokens.input
    return plan.worst_tokens.output if unit is OUTPUT_TOKENS else 1


def _served_by(kind: str, deployment: Deployment) -> str:
    return deployment.id if kind == "deployment" else deployment.provider.id


def _what(limit: Limit) -> tuple[str, str, Unit, str, Action]:
    return limit.account, limit.of, limit.unit, str(limit.window), limit.action

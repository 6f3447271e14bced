"""Which limits one request counts against, and with how much.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.ledger.base import Line
from gateway.plan import Plan
from gateway.types import Account, Key, Limit, Request, Tenant, Unit


def lines(request: Request, tenant: Tenant, everyone: Iterable[Limit], plan: Plan) -> tuple[Line, ...]:
    """A line per limit of the tenant, of the key and of `everyone` that applies to this request."""
    amounts = {
        Unit.COST: plan.worst_cost or 0,
        Unit.REQUESTS: 1,
        Unit.TOKENS: plan.worst_tokens,
        Unit.CONCURRENT: 1,
    }
    found: list[Line] = []
    for limit in (*tenant.limits, *request.key.limits, *everyone):
        account = account_of(limit.account, request, tenant, request.key)
        if account is not None:
            found.append(Line(account, limit, amounts[limit.unit]))
    return tuple(found)


def account_of(kind: str, request: Request, tenant: Tenant, key: Key) -> Account | None:
    """The account of one kind that this request belongs to; None when it names none (no user, no such tag)."""
    if kind == "global":
        return Account("global", "all")
    if kind.startswith("tag:"):
        name = kind.removeprefix("tag:")
        value = request.tags.get(name)
        return Account(kind, value, tenant.id) if value else None
    id_ = {
        "tenant": tenant.id,
        "key": key.id,
        "user": request.user,
        "task": request.task,
        "model": request.model,
    }.get(kind, request.tags.get(kind, ""))
    return Account(kind, id_, tenant.id) if id_ else None


def shared_lines(tenants: Iterable[Tenant], everyone: Iterable[Limit]) -> list[Line]:
    """The limits of the few accounts that may be labels of gauges: tenants themselves, and all of us."""
    found = [
        Line(Account("tenant", tenant.id, tenant.id), limit, 0)
        for tenant in tenants
        for limit in tenant.limits
        if limit.account == "tenant"
    ]
    return found + [Line(Account("global", "all"), limit, 0) for limit in everyone if limit.account == "global"]

"""`/admin/v1/budgets`: limits in dollars, requests, tokens or places in flight, with what is used of them now."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from msgspec.structs import replace

from gateway.accounts import SPANNING, beside, holds
from gateway.api.admin_shapes import NEW, BudgetBody, Desk, actor, balance_shown, desk, limit_shown, listed, missing
from gateway.configuration.named import ALL, nobody
from gateway.errors import Conflict, InvalidRequest, LedgerUnavailable
from gateway.ledger.base import Line
from gateway.sql.nouns import StoredLimit
from gateway.types import Account, Limit

router = APIRouter(prefix="/admin/v1/budgets")
At = Annotated[Desk, Depends(desk)]
Actor = Annotated[str, Depends(actor)]
NewId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]

LEDGER_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A limit and whose it is.  `tenant`: "" for everyone's."""

    limit: Limit
    tenant: str
    key: str | None
    source: str
    replaced: bool = False  # by one that an administrator made

    @property
    def account(self) -> Account | None:
        """The one account it limits; None where there is one for each user, task, tag ..."""
        kind, of = self.limit.account, self.limit.of
        if kind == "global":
            return Account(kind, "all")
        if kind == "tenant":
            whose = self.tenant or of
            return Account(kind, whose, whose) if whose else None
        if kind == "key" and self.key is not None:
            return Account(kind, self.key, self.tenant)
        spans = kind in SPANNING or kind.startswith("tag:")
        return Account(kind, of, self.tenant) if of and (self.tenant or spans) else None


@router.get("")
async def budgets(at: At, tenant: str | None = None) -> dict[str, Any]:
    """Every limit, or a tenant's; `balance` is null where a limit has many accounts or the ledger is away."""
    found = [each for each in await _all(at) if tenant in (None, each.tenant)]
    return listed(await _shown(found, at))


@router.post("", status_code=201)
async def create_budget(body: BudgetBody, at: At, who: Actor) -> dict[str, Any]:
    """A new limit, in force everywhere within about a second."""
    stored = await _limit(body, body.id or f"budget_{secrets.token_hex(8)}", at)
    await at.store.put_limit(stored, who, create=True)
    return await budget(stored.limit.id, at)


@router.get("/{id_}")
async def budget(id_: str, at: At) -> dict[str, Any]:
    """One limit."""
    for each in await _all(at):
        if each.limit.id == id_:
            return (await _shown([each], at))[0]
    raise missing("budget", id_)


@router.put("/{id_}", responses=NEW)
async def put_budget(id_: NewId, body: BudgetBody, at: At, who: Actor, response: Response) -> dict[str, Any]:
    """The limit as given; what was spent in its window counts on.  Again changes nothing."""
    _not_of_file(id_, at)
    if body.id not in (None, id_):
        raise Conflict(f"The body's id {body.id!r} is not the path's, {id_!r}.", param="id")
    if await at.store.put_limit(await _limit(body, id_, at), who):
        response.status_code = 201
    return await budget(id_, at)


@router.delete("/{id_}", status_code=204)
async def delete_budget(id_: str, at: At, who: Actor) -> None:
    """No longer limited.  What was spent stays spent."""
    _not_of_file(id_, at)
    await at.store.delete_limit(id_, who)


async def _limit(body: BudgetBody, id_: str, at: Desk) -> StoredLimit:
    if body.tenant is None:
        return StoredLimit(_named(body.limit(id_, UTC), at), "", None)
    at.editable(body.tenant)
    owner = await at.store.tenant(body.tenant)
    return StoredLimit(_named(body.limit(id_, owner.tenant.zone), at), body.tenant, body.key)


def _named(limit: Limit, at: Desk) -> Limit:
    """The same.  Raises InvalidRequest where it is of a place or a model that is not there: it would limit nothing."""
    site = at.sites.current
    places = {"deployment": site.settings.deployments, "provider": site.settings.providers}
    if wrong := nobody(limit, {**places, "model": site.catalog.names(), "global": ALL}):
        raise InvalidRequest(f"`of`: {wrong}", param="of")
    return limit


async def _all(at: Desk) -> list[Placed]:
    stored = await at.store.limits()
    made = [each.limit for each in stored if not each.tenant]
    return [*_of_file(at, made), *(Placed(each.limit, each.tenant, each.key, "admin") for each in stored)]


def _of_file(at: Desk, made: Sequence[Limit] = ()) -> Iterator[Placed]:
    """The file's limits, with ids that are theirs alone: a tenant's or key's id before the limit's."""
    settings, now = at.sites.current.settings, time.time()
    left = {limit.id for limit in beside(made, settings.limits) if (limit.since or 0.0) <= now}
    for limit in settings.limits:
        yield Placed(replace(limit, id=f"everyone:{limit.id}"), "", None, "file", limit.id not in left)
    for tenant in settings.tenants:
        for limit in tenant.limits:
            yield Placed(replace(limit, id=f"{tenant.id}:{limit.id}"), tenant.id, None, "file")
    for key in settings.keys:
        for limit in key.limits:
            yield Placed(replace(limit, id=f"{key.id}:{limit.id}"), key.tenant, key.id, "file")


def _not_of_file(id_: str, at: Desk) -> None:
    if any(each.limit.id == id_ for each in _of_file(at)):
        raise Conflict(f"Budget {id_!r} is written in {at.sites.current.settings.source}: change it there.")


async def _shown(found: Sequence[Placed], at: Desk) -> list[dict[str, Any]]:
    lines = [(index, Line(each.account, each.limit, 0)) for index, each in enumerate(found) if each.account is not None]
    balances: dict[int, dict[str, Any]] = {}
    now = time.time()
    try:
        async with asyncio.timeout(LEDGER_WAIT_S):
            seen = await at.ledger.balances([line for _, line in lines])
        balances = {index: balance_shown(balance) for (index, _), balance in zip(lines, seen, strict=True)}
    except (LedgerUnavailable, TimeoutError):
        balances = {}  # the limits themselves are known all the same
    return [
        {
            "object": "budget",
            "tenant": each.tenant or None,
            "key": each.key,
            "source": each.source,
            "in_force": not each.replaced and holds(each.limit, now),
            **limit_shown(each.limit),
            "balance": balances.get(index),
        }
        for index, each in enumerate(found)
    ]

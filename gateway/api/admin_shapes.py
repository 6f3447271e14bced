"""What the admin API takes and gives.

Money is an exact integer beside the same in dollars as text; what is unknown is null.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Literal
from zoneinfo import ZoneInfoNotFoundError, available_timezones

from fastapi import Request
from pydantic import Field

from gateway.configuration.quantities import Dollars, Moment, Name
from gateway.configuration.schema import EVERYONE_ACCOUNTS, TENANT_ACCOUNTS, LimitShape, Shape
from gateway.document import nearest
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.ledger.base import Balance, Ledger
from gateway.money import dollars, nano
from gateway.site import Sites
from gateway.sql.nouns import StoredKey, StoredTenant, zone_name, zone_of
from gateway.sql.tenants import Store
from gateway.types import ORGANISATION, STEP_KINDS, Action, Every, Key, Limit, NanoUSD, Tenant, Unit, Window

OVERLAP_S = 86400.0
"""How long a rotated key's old secret holds unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the handlers work with."""

    store: Store
    ledger: Ledger
    sites: Sites

    def file_tenant(self, id_: str) -> Tenant | None:
        """The tenant of that id in the configuration file."""
        return next((tenant for tenant in self.sites.current.settings.tenants if tenant.id == id_), None)

    def editable(self, tenant: str) -> None:
        """Raises Conflict if the tenant belongs to the configuration file."""
        if self.file_tenant(tenant) is not None:
            raise Conflict(
                f"Tenant {tenant!r} is written in {self.sites.current.settings.source}: change it there, and the "
                "gateway takes it over at once."
            )


def desk(request: Request) -> Desk:
    """The application's."""
    found: Desk = request.app.state.desk
    return found


def actor(request: Request) -> str:
    """Who asks, for the log: `x-tollgate-actor` if it was sent, and the address."""
    named = request.headers.get("x-tollgate-actor", "admin")[:128]
    return f"{named} at {request.client.host}" if request.client else named


class TenantBody(Shape):
    """All of a tenant but its keys and budgets."""

    models: list[str] = Field(["*"], max_length=1000)
    endpoints: list[str] = Field(["*"], max_length=100)
    tiers: list[str] = Field([], max_length=100)
    regions: list[str] = Field([], max_length=100)
    organisation: str = Field("", max_length=128)
    tags: dict[str, str] = Field({}, max_length=50)
    timezone: str = "UTC"
    on_ledger_outage: Literal["refuse_if_capped", "refuse", "pass"] = "refuse_if_capped"
    drop_params: bool = False
    suspended: bool = False
    request_cost_max_usd: Dollars | None = None

    def tenant(self, id_: str) -> Tenant:
        """As the gateway knows it.  Raises InvalidRequest."""
        most = self.request_cost_max_usd
        return Tenant(
            id=id_,
            models=tuple(self.models),
            endpoints=tuple(self.endpoints),
            tiers=tuple(self.tiers),
            regions=tuple(self.regions),
            tags={**self.tags, ORGANISATION: self.organisation} if self.organisation else self.tags,
            zone=zone(self.timezone),
            on_ledger_outage=self.on_ledger_outage,
            drop_params=self.drop_params,
            suspended=self.suspended,
            request_cost_max=None if most is None else nano(most),
        )


class NewTenant(TenantBody):
    """With its id."""

    id: Name


class KeyBody(Shape):
    """A key to be made; the gateway chooses its secret."""

    name: Name
    models: list[str] = Field(["*"], max_length=1000)
    endpoints: list[str] = Field(["*"], max_length=100)
    expires: Moment | None = None


class RotateBody(Shape):
    """How long the old secret still holds."""

    overlap_s: float = Field(OVERLAP_S, ge=0, le=90 * 86400)


class BudgetBody(LimitShape):
    """A limit on an account of a tenant, of one of its keys, or (`tenant: null`) of everyone."""

    tenant: str | None
    key: str | None = None

    def limit(self, id_: str, within: tzinfo) -> Limit:
        """As the gateway knows it, in the tenant's time zone.  Raises InvalidRequest."""
        account = self._account()
        if self.action is Action.DEGRADE and account in STEP_KINDS:
            raise InvalidRequest(f"`action`: a budget of a {account} can deny or alert, not degrade.", param="action")
        unit, amount = self._amount()
        windows = (self.window is not None) + (self.rolling is not None)
        if windows != (0 if unit is Unit.CONCURRENT else 1):
            wanted = "takes no window" if unit is Unit.CONCURRENT else "needs one of `window` and `rolling`"
            raise InvalidRequest(f"A limit of {unit} {wanted}.", param="window")
        window = Window(self.window or Every.TOTAL, self.rolling or 0, within)
        return Limit(account, unit, amount, window, self.action, id_, self.of, self.until)

    def _account(self) -> str:
        if self.tenant is None and self.key is not None:
            raise InvalidRequest("`key`: a limit of everyone has no key.", param="key")
        allowed, usual = (EVERYONE_ACCOUNTS, "global") if self.tenant is None else (TENANT_ACCOUNTS, "tenant")
        if "account" not in self.model_fields_set:
            return usual if self.key is None else "key"
        if self.account not in allowed and not re.fullmatch(r"tag:[\w.-]{1,64}", self.account):
            hint = nearest(self.account, allowed)
            raise InvalidRequest(f"`account`: no limit is kept for {self.account!r}{hint}.", param="account")
        return self.account

    def _amount(self) -> tuple[Unit, int]:
        amounts = {
            Unit.COST: None if self.limit_usd is None else nano(self.limit_usd),
            Unit.REQUESTS: self.requests,
            Unit.TOKENS: self.tokens,
            Unit.INPUT_TOKENS: self.input_tokens,
            Unit.OUTPUT_TOKENS: self.output_tokens,
            Unit.CONCURRENT: self.concurrent,
        }
        given = [(unit, amount) for unit, amount in amounts.items() if amount is not None]
        if len(given) != 1:
            names = "`limit_usd`, `requests`, `tokens`, `input_tokens`, `output_tokens` and `concurrent`"
            raise InvalidRequest(f"Give one of {names}.", param="limit_usd")
        return given[0]


def zone(name: str) -> tzinfo:
    """The zone of that name.  Raises InvalidRequest."""
    try:
        return zone_of(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(name, available_timezones())
        hint = hint if "did you mean" in hint else "; write one such as Europe/Berlin"
        raise InvalidRequest(f"`timezone`: there is no time zone {name[:64]!r}{hint}.", param="timezone") from None


def money(amount: NanoUSD | None) -> dict[str, Any] | None:
    """Exact, twice; None for what is not known."""
    return None if amount is None else {"nano_usd": amount, "usd": dollars(amount)}


NEW: dict[int | str, dict[str, Any]] = {201: {"description": "It is new.", "model": dict[str, Any]}}
"""Beside 200, of what is put."""


def listed(data: Iterable[Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """OpenAI's list."""
    return {"object": "list", "data": list(data), **more}


def tenant_shown(tenant: Tenant, source: str, stored: StoredTenant | None = None) -> dict[str, Any]:
    """A tenant, from the configuration `file` or made by an `admin`."""
    return {
        "object": "tenant",
        "id": tenant.id,
        "source": source,
        "suspended": tenant.suspended,
        "models": list(tenant.models),
        "endpoints": list(tenant.endpoints),
        "tiers": list(tenant.tiers),
        "regions": list(tenant.regions),
        "tags": dict(tenant.tags),
        "timezone": zone_name(tenant.zone),
        "on_ledger_outage": tenant.on_ledger_outage,
        "drop_params": tenant.drop_params,
        "request_cost_max": money(tenant.request_cost_max),
        "budgets": [limit_shown(limit) for limit in tenant.limits],
        "created": stored.created if stored else None,
        "updated": stored.updated if stored else None,
    }


def key_shown(key: Key, source: str, stored: StoredKey | None = None) -> dict[str, Any]:
    """A key; never its secret, nor what proves it."""
    return {
        "object": "key",
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "source": source,
        "models": list(key.models),
        "endpoints": list(key.endpoints),
        "expires": key.expires,
        "revoked": stored.revoked if stored else None,
        "created": stored.created if stored else None,
        "budgets": [limit_shown(limit) for limit in key.limits],
    }


def limit_shown(limit: Limit) -> dict[str, Any]:
    """A limit: dollars as money, anything else as a count."""
    return {
        "id": limit.id,
        "account": limit.account,
        "unit": str(limit.unit),
        "limit": _amount_shown(limit, limit.amount),
        "window": str(limit.window),
        "timezone": zone_name(limit.window.zone),
        "action": str(limit.action),
        "of": limit.of or None,
        "until": limit.until,
    }


def balance_shown(balance: Balance) -> dict[str, Any]:
    """What of a limit is used now."""
    limit = balance.limit
    return {
        "spent": _amount_shown(limit, balance.spent),
        "reserved": _amount_shown(limit, balance.reserved),
        "remaining": _amount_shown(limit, balance.remaining),
        "resets": balance.resets,
    }


def timestamp(value: str, name: str) -> float:
    """Unix seconds from themselves or from ISO 8601 (UTC unless it says otherwise).  Raises InvalidRequest."""
    try:
        return float(value)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        wanted = "unix seconds or a time such as 2027-01-31T12:00:00Z"
        raise InvalidRequest(f"`{name}` must be {wanted}.", param=name) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone_of("UTC"))).timestamp()


def missing(kind: str, id_: str) -> NotFound:
    """The 404 that says what is not there."""
    return NotFound(f"There is no {kind} {id_[:100]!r}.")


def _amount_shown(limit: Limit, amount: int) -> dict[str, Any] | int | None:
    return money(amount) if limit.unit is Unit.COST else amount

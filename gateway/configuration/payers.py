"""Tenants, keys and limits of a configuration as nouns, and what can be wrong with them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from gateway.configuration.schema import (
    EVERYONE_ACCOUNTS,
    TENANT_ACCOUNTS,
    KeyShape,
    LimitShape,
    RateLimitsShape,
    TenantShape,
)
from gateway.document import Document, Path, nearest
from gateway.money import nano
from gateway.tenants import hash_key
from gateway.types import ORGANISATION, STEP_KINDS, Action, Every, Key, Limit, Tenant, Unit, Window

DEMO_PREFIX = "demo-"
"""Secrets that begin with this stand in a public file: they are refused where others can reach the gateway."""

_ROLLING = {"minute": 60, "hour": 3600, "day": 86400}


@dataclass(slots=True)
class Payers:
    """Reads tenants and limits, noting problems in the document."""

    document: Document
    loopback: bool
    tenants: list[Tenant] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    named: list[tuple[Path, Limit]] = field(default_factory=list)  # those of one account, and where they stand
    _digests: dict[bytes, str] = field(default_factory=dict)

    def read(self, shapes: Sequence[TenantShape]) -> None:
        """Adds every tenant with its keys."""
        seen: set[str] = set()
        for index, shape in enumerate(shapes):
            place: Path = ("tenants", index)
            if shape.id in seen:
                self.document.problem((*place, "id"), f"tenant {shape.id!r} stands twice; ids must differ")
            seen.add(shape.id)
            self._tenant(shape, place)

    def everyone(self, shapes: Sequence[LimitShape]) -> tuple[Limit, ...]:
        """The limits that hold for all tenants together."""
        return self._limits(shapes, (), ("limits",), ZoneInfo("UTC"), EVERYONE_ACCOUNTS, "global")

    def secret(self, secret: str | None, place: Path) -> None:
        """Notes a secret that everyone knows where everyone can reach us."""
        if secret and secret.startswith(DEMO_PREFIX) and not self.loopback:
            self.document.problem(
                place, f"a key that begins with {DEMO_PREFIX!r} is public; choose another, or listen on 127.0.0.1 only"
            )

    def _tenant(self, shape: TenantShape, place: Path) -> None:
        zone = self._zone(shape.timezone, (*place, "timezone"))
        limits = self._limits(shape.budgets, shape.rate_limits, place, zone, TENANT_ACCOUNTS, "tenant")
        most = shape.request_cost_max_usd
        self.tenants.append(
            Tenant(
                id=shape.id,
                models=tuple(shape.models),
                limits=limits,
                tags={**shape.tags, ORGANISATION: shape.organisation} if shape.organisation else shape.tags,
                zone=zone,
                on_ledger_outage=shape.on_ledger_outage,
                drop_params=shape.drop_params,
                suspended=shape.suspended,
                priority=shape.priority,
                resume_streams=shape.resume_streams,
                request_cost_max=None if most is None else nano(most),
                endpoints=tuple(shape.endpoints),
                tiers=tuple(shape.tiers),
                regions=tuple(shape.regions),
            )
        )
        names: set[str] = set()
        for index, key in enumerate(shape.keys):
            where = (*place, "keys", index)
            if key.name in names:
                self.document.problem(
                    (*where, "name"), f"key {key.name!r} of {shape.id!r} stands twice; names must differ"
                )
            names.add(key.name)
            self._key(key, shape.id, zone, where)

    def _key(self, shape: KeyShape, tenant: str, zone: ZoneInfo, place: Path) -> None:
        if (shape.hash is None) == (shape.key is None):
            if not any(path[: len(place)] == place for path in self.document.unset):
                self.document.problem(place, f"key {shape.name!r} needs one of hash and key, not both")
            return
        self.secret(shape.key, (*place, "key"))
        digest = bytes.fromhex(shape.hash.partition(":")[2]) if shape.hash else hash_key(shape.key or "")
        name = f"{tenant}:{shape.name}"
        if other := self._digests.get(digest):
            self.document.problem(place, f"keys {other!r} and {name!r} have the same secret; each needs its own")
        self._digests[digest] = name
        id_ = shape.id or name
        if any(key.id == id_ for key in self.keys):
            self.document.problem(place, f"key id {id_!r} stands twice; ids must differ")
        limits = self._limits(shape.budgets, shape.rate_limits, place, zone, TENANT_ACCOUNTS, "key")
        self.keys.append(
            Key(
                id=id_,
                tenant=tenant,
                name=shape.name,
                digest=digest,
                expires=shape.expires,
                models=tuple(shape.models),
                limits=limits,
                endpoints=tuple(shape.endpoints),
            )
        )

    def _zone(self, name: str, place: Path) -> ZoneInfo:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            hint = nearest(name, available_timezones())
            hint = hint if "did you mean" in hint else "; write one such as Europe/Berlin"
            self.document.problem(place, f"there is no time zone {name!r}{hint}")
            return ZoneInfo("UTC")

    def _limits(
        self,
        budgets: Sequence[LimitShape],
        rates: Sequence[RateLimitsShape],
        place: Path,
        zone: ZoneInfo,
        allowed: Sequence[str],
        account: str,
    ) -> tuple[Limit, ...]:
        """Budgets, then rate limits; `account` is what they are kept for unless they say otherwise."""
        found: list[tuple[Path, Limit]] = []
        for index, budget in enumerate(budgets):
            where = (*place, index) if place == ("limits",) else (*place, "budgets", index)
            kind = self._account(budget, account, allowed, where)
            if limit := self._budget(budget, kind, zone, where):
                found.append((where, limit))
        for index, rate in enumerate(rates):
            where = (*place, "rate_limits")
            where = (*where, index) if (*where, index) in self.document.lines else where
            kind = self._account(rate, account, allowed, where)
            found += [(where, limit) for limit in rate_limits(rate, kind)]
        seen: set[str] = set()
        for where, limit in found:
            if limit.id in seen:
                self.document.problem(
                    where, f"limit {limit.id!r} stands twice; change one, or give it an id of its own"
                )
            seen.add(limit.id)
        self.named += [(where, limit) for where, limit in found if limit.of]
        return tuple(limit for _, limit in found)

    def _account(self, shape: LimitShape | RateLimitsShape, default: str, allowed: Sequence[str], place: Path) -> str:
        account = shape.account if "account" in shape.model_fields_set else default
        if account not in allowed and not ("tag:NAME" in allowed and re.fullmatch(r"tag:[\w.-]{1,64}", account)):
            self.document.problem((*place, "account"), f"no limit is kept for {account!r}{nearest(account, allowed)}")
        return account

    def _budget(self, shape: LimitShape, account: str, zone: ZoneInfo, place: Path) -> Limit | None:
        amounts = {
            Unit.COST: None if shape.limit_usd is None else nano(shape.limit_usd),
            Unit.REQUESTS: shape.requests,
            Unit.TOKENS: shape.tokens,
            Unit.INPUT_TOKENS: shape.input_tokens,
            Unit.OUTPUT_TOKENS: shape.output_tokens,
            Unit.CONCURRENT: shape.concurrent,
        }
        given = {unit: amount for unit, amount in amounts.items() if amount is not None}
        if len(given) != 1:
            names = "limit_usd, requests, tokens, input_tokens, output_tokens and concurrent"
            self.document.problem(place, f"needs one of {names}")
            return None
        ((unit, amount),) = given.items()
        windows = (shape.window is not None) + (shape.rolling is not None)
        if windows != (0 if unit is Unit.CONCURRENT else 1):
            wanted = "takes no window" if unit is Unit.CONCURRENT else "needs one of window and rolling"
            self.document.problem(place, f"a limit of {unit} {wanted}")
            return None
        window = Window(shape.window or Every.TOTAL, shape.rolling or 0, zone)
        if shape.action is Action.DEGRADE and account in STEP_KINDS:
            words = f"a budget of a {account} can deny or alert, not degrade"
            self.document.problem((*place, "action"), words)
        id_ = shape.id or f"{account}-{unit}-{window}-{shape.action}" + (f"-{shape.of}" if shape.of else "")
        return Limit(account, unit, amount, window, shape.action, id_, shape.of, shape.until)


def rate_limits(shape: RateLimitsShape, account: str) -> list[Limit]:
    """`requests_per_minute: 600` as at most 600 in any 60 seconds, and the like."""
    found: list[Limit] = []
    for unit in (Unit.REQUESTS, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS):
        for every, seconds in _ROLLING.items():
            amount: int | None = getattr(shape, f"{unit}_per_{every}")
            if amount is not None:
                found.append(
                    Limit(account, unit, amount, Window(rolling_s=seconds), id=f"{account}-{unit}-per-{every}")
                )
    if shape.concurrent is not None:
        found.append(Limit(account, Unit.CONCURRENT, shape.concurrent, Window(), id=f"{account}-concurrent"))
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hard(limits: Iterable[Limit]) -> bool:
    """Whether any of these refuses for money, whoever asks; those `of` one account are looked at request by request."""
    return any(limit.unit is Unit.COST and limit.action is Action.DENY and not limit.of for limit in limits)

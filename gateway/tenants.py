"""Who may ask: keys by the digest of their secret, and what each may use.  Pure; the clock is an argument."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache

from gateway.errors import Suspended, Unauthorized
from gateway.types import Key, Limit, Tenant

SECRET_PREFIX = "tg-"  # noqa: S105 - the part of every secret that is public


def new_secret() -> str:
    """A key's secret, shown once: 256 random bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def hash_key(secret: str) -> bytes:
    """What is kept of a secret.  Plain SHA-256: 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def permits(tenant: Tenant, key: Key, model: str) -> bool:
    """Whether both the tenant's and the key's patterns allow `model`, a route or deployment as the client names it."""
    return _matches(tenant.models, model) and _matches(key.models, model)


def permits_endpoint(tenant: Tenant, key: Key, endpoint: str) -> bool:
    """Whether both may use it: chat, messages, embeddings ..."""
    return _matches(tenant.endpoints, endpoint) and _matches(key.endpoints, endpoint)


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return "*" in patterns or _matched(patterns, name)


@lru_cache(maxsize=8192)
def _matched(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Directory:
    """Every tenant and key.  Of several with one id the first holds: give the file's before the stored ones.

    A key whose tenant is not here proves nothing.
    """

    tenants: Iterable[Tenant]
    keys: Iterable[Key]
    _digests: Mapping[bytes, tuple[Tenant, Key]] = field(init=False, repr=False)
    _limits: Mapping[str, tuple[Limit, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tenants = {tenant.id: tenant for tenant in reversed(list(self.tenants))}
        keys = {key.id: key for key in reversed(list(self.keys)) if key.tenant in tenants}
        object.__setattr__(self, "tenants", tuple(reversed(tenants.values())))
        object.__setattr__(self, "keys", tuple(reversed(keys.values())))
        object.__setattr__(self, "_digests", {key.digest: (tenants[key.tenant], key) for key in keys.values()})
        limits = {key.id: (*tenants[key.tenant].limits, *key.limits) for key in keys.values()}
        object.__setattr__(self, "_limits", limits)

    def find(self, secret: str, now: float) -> tuple[Tenant, Key] | None:
        """The key that `secret` proves and its tenant; None if there is none, or if it has expired at `now`."""
        found = self._proved(secret)
        return None if found is None or _expired(found[1], now) else found

    def authenticate(self, secret: str, now: float) -> tuple[Tenant, Key]:
        """As `find`.  Raises Unauthorized (no secret, a wrong or an expired one) or Suspended (the tenant)."""
        if not secret:
            raise Unauthorized("No API key. Send it as `Authorization: Bearer KEY` or in `x-api-key`.")
        found = self._proved(secret)
        if found is None:
            raise Unauthorized("The API key is not valid.")
        tenant, key = found
        if _expired(key, now):
            raise Unauthorized(f"The API key {key.name!r} has expired.")
        if tenant.suspended:
            raise Suspended(f"Tenant {tenant.id!r} is suspended.")
        return found

    def limits_for(self, tenant: Tenant, key: Key) -> tuple[Limit, ...]:
        """Every limit that a request with this key counts against: the tenant's, then the key's own."""
        known = self._limits.get(key.id)
        return (*tenant.limits, *key.limits) if known is None else known

    def _proved(self, secret: str) -> tuple[Tenant, Key] | None:
        digest = hash_key(secret)
        found = self._digests.get(digest)
        return found if found is not None and hmac.compare_digest(found[1].digest, digest) else None


def _expired(key: Key, now: float) -> bool:
    return key.expires is not None and now >= key.expires

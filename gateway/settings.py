"""config/gateway.yaml and the environment -> one frozen `Settings`.

`gateway/data/` holds what every installation knows: `providers.yaml` (presets of vendors) and `prices.yaml`
(corrections to the price list, facts about models).  Files of the same names beside the configuration win over them
entry by entry, so an operator corrects a price or adds a vendor without touching the package.

A provider that is `optional: true` is left out, with its deployments, when an environment variable it names is not set;
one with `enabled: false` always.  Everything that is wrong is reported at once, each with file, line and key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.configuration import named
from gateway.configuration.payers import Payers, is_loopback
from gateway.configuration.places import Places
from gateway.configuration.presets import fitted, known
from gateway.configuration.schema import Alerts, File, Learning, LedgerOptions, Server
from gateway.document import Document, Problem, SettingsError, read, text_of
from gateway.room import TENANT_SHARE
from gateway.shadows.payer import payers as shadow_payers
from gateway.types import Deployment, Key, Limit, Provider, Route, Tenant

__all__ = ["Problem", "Settings", "SettingsError", "load", "parse"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One consistent configuration."""

    source: str  # the file's name as given
    path: Path | None  # to watch; None: there is no file
    server: Server
    redis: str | None = field(repr=False)
    database: str = field(repr=False)
    admin_key: str | None = field(repr=False)  # None: no admin API
    spool: str
    spool_bytes_max: int
    ledger: LedgerOptions
    alerts: Alerts = field(repr=False)  # addresses of webhooks are secrets
    learning: Learning | None = field(repr=False)  # its salt is one
    providers: Mapping[str, Provider]
    deployments: Mapping[str, Deployment]
    routes: Mapping[str, Route]
    tenants: tuple[Tenant, ...]
    keys: tuple[Key, ...]
    limits: tuple[Limit, ...]  # of everyone
    notices: tuple[str, ...]  # what was left out, and why
    prices_change_at: float | None  # unix seconds: load again then


def load(path: str | Path, env: Mapping[str, str] | None = None, *, now: float | None = None) -> Settings:
    """The settings in the file at `path`, with the prices that hold at `now`.  Raises SettingsError."""
    path = Path(path)
    return parse(text_of(path), env, str(path), path=path, now=now)


def parse(
    text: str,
    env: Mapping[str, str] | None = None,
    name: str = "gateway.yaml",
    *,
    path: Path | None = None,
    now: float | None = None,
) -> Settings:
    """The settings in `text`, which errors call `name`.  `env` is the process's unless given.  Raises SettingsError."""
    env = os.environ if env is None else env
    document = read(text, env, name)
    absent = _absent(document)
    file = fitted(document, File)
    if file is None:
        document.check()
        raise SettingsError(document.problems)
    places = Places(document, known(path.parent if path else None, env), absent, time.time() if now is None else now)
    places.read(file)
    _check_room(file.server, document)
    payers = Payers(document, is_loopback(file.server.host))
    payers.secret(file.admin_key, ("admin_key",))
    payers.read(file.tenants)
    limits = payers.everyone(file.limits)
    places.check_prices(payers, limits)
    named.check(places, payers, file.providers)
    document.check()
    tenants = (*payers.tenants, *shadow_payers(places.routes.values()))
    return Settings(
        source=name,
        path=path,
        server=file.server,
        redis=file.redis,
        database=file.database,
        admin_key=file.admin_key,
        spool=file.spool,
        spool_bytes_max=file.spool_bytes_max,
        ledger=file.ledger,
        alerts=file.alerts,
        learning=file.learning,
        providers=places.providers,
        deployments=places.deployments,
        routes=places.routes,
        tenants=tenants,
        keys=tuple(payers.keys),
        limits=limits,
        notices=(*places.notices, *_no_such_models(places, payers), *named.notices(payers, tenants)),
        prices_change_at=min(places.changes, default=None),
    )


def _check_room(server: Server, document: Document) -> None:
    least = round(server.request_bytes_max / TENANT_SHARE)
    if server.bodies_bytes_max < least:
        document.problem(("server", "bodies_bytes_max"), f"must be at least {least}: room for two of the largest")


def _absent(document: Document) -> dict[str, str]:
    """Providers to leave out, and why.  Variables that only they lack are no longer a problem."""
    entries = document.value.get("providers") if isinstance(document.value, dict) else None
    absent: dict[str, str] = {}
    for id_, entry in entries.items() if isinstance(entries, dict) else ():
        if not isinstance(entry, dict):
            continue
        lacking = {path: variable for path, variable in document.unset.items() if path[:2] == ("providers", id_)}
        if str(entry.get("enabled", True)).lower() in {"none", "false", ""}:
            entry["enabled"] = False  # `${KEY:+true}` came out empty
            absent[id_] = "it is not enabled"
        elif lacking and str(entry.get("optional")).lower() == "true":
            absent[id_] = f"{', '.join(sorted(set(lacking.values())))} is not set"
        if id_ in absent:
            for path in lacking:
                del document.unset[path]
                _blank(document.value, path)
    return absent


def _blank(value: object, path: tuple[str | int, ...]) -> None:
    """Puts an empty text where a variable of a provider that is left out would have stood."""
    *around, last = path
    for part in around:
        value = value[part]  # type: ignore[index]  # the path was read from this very value
    value[last] = ""  # type: ignore[index]  # the same


def _no_such_models(places: Places, payers: Payers) -> list[str]:
    names = places.names()
    return [
        f"tenant {tenant.id!r} may use {pattern!r}, but nothing has this name"
        for tenant in payers.tenants
        for pattern in tenant.models
        if not any(wildcard in pattern for wildcard in "*?[") and pattern not in names
    ]

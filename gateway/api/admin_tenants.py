"""`/admin/v1/tenants` and `/admin/v1/keys`."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from gateway.api.admin_shapes import (
    NEW,
    OVERLAP_S,
    Desk,
    KeyBody,
    NewTenant,
    RotateBody,
    TenantBody,
    actor,
    desk,
    key_shown,
    listed,
    missing,
    tenant_shown,
)
from gateway.errors import Conflict, NotFound
from gateway.sql.nouns import StoredKey
from gateway.tenants import hash_key, new_secret
from gateway.types import Key

router = APIRouter(prefix="/admin/v1")
At = Annotated[Desk, Depends(desk)]
Actor = Annotated[str, Depends(actor)]
NewId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


@router.get("/tenants")
async def tenants(at: At) -> dict[str, Any]:
    """Every tenant: the file's, then those made here."""
    shown = [tenant_shown(tenant, "file") for tenant in at.sites.current.settings.tenants]
    taken = {tenant["id"] for tenant in shown}
    stored = [found for found in await at.store.tenants() if found.tenant.id not in taken]
    return listed([*shown, *(tenant_shown(found.tenant, "admin", found) for found in stored)])


@router.post("/tenants", status_code=201)
async def create_tenant(body: NewTenant, at: At, who: Actor) -> dict[str, Any]:
    """A new tenant, without keys or budgets yet."""
    if at.file_tenant(body.id) is not None:
        raise Conflict(f"Tenant {body.id!r} exists already, in {at.sites.current.settings.source}.", param="id")
    found = await at.store.create_tenant(body.tenant(body.id), who)
    return tenant_shown(found.tenant, "admin", found)


@router.get("/tenants/{id_}")
async def tenant(id_: str, at: At) -> dict[str, Any]:
    """One tenant."""
    if (known := at.file_tenant(id_)) is not None:
        return tenant_shown(known, "file")
    found = await at.store.tenant(id_)
    return tenant_shown(found.tenant, "admin", found)


@router.put("/tenants/{id_}", responses=NEW)
async def put_tenant(id_: NewId, body: TenantBody, at: At, who: Actor, response: Response) -> dict[str, Any]:
    """The tenant as given; what the body leaves out has its default.  Again changes nothing."""
    at.editable(id_)
    if await at.store.put_tenant(body.tenant(id_), who):
        response.status_code = 201
    return await tenant(id_, at)


@router.delete("/tenants/{id_}", status_code=204)
async def delete_tenant(id_: str, at: At, who: Actor) -> None:
    """With its keys and budgets; its records stay."""
    at.editable(id_)
    await at.store.delete_tenant(id_, who)


@router.post("/tenants/{id_}/suspend")
async def suspend(id_: str, at: At, who: Actor) -> dict[str, Any]:
    """None of its keys is served, everywhere within about a second."""
    at.editable(id_)
    await at.store.suspend(id_, True, who)
    return await tenant(id_, at)


@router.post("/tenants/{id_}/resume")
async def resume(id_: str, at: At, who: Actor) -> dict[str, Any]:
    """It is served again."""
    at.editable(id_)
    await at.store.suspend(id_, False, who)
    return await tenant(id_, at)


@router.get("/tenants/{id_}/keys")
async def tenant_keys(id_: str, at: At) -> dict[str, Any]:
    """Its keys, revoked ones too."""
    if at.file_tenant(id_) is not None:
        return listed(key_shown(key, "file") for key in at.sites.current.settings.keys if key.tenant == id_)
    await at.store.tenant(id_)
    return listed(key_shown(found.key, "admin", found) for found in await at.store.keys(id_))


@router.post("/tenants/{id_}/keys", status_code=201)
async def create_key(id_: str, body: KeyBody, at: At, who: Actor) -> dict[str, Any]:
    """A new key.  `secret` is in this answer and nowhere else: only its hash is kept."""
    at.editable(id_)
    secret = new_secret()
    found = await at.store.create_key(_key(id_, body.name, secret, body), who)
    return {**key_shown(found.key, "admin", found), "secret": secret}


@router.get("/keys")
async def keys(at: At) -> dict[str, Any]:
    """Every key of every tenant."""
    shown = [key_shown(key, "file") for key in at.sites.current.settings.keys]
    return listed([*shown, *(key_shown(found.key, "admin", found) for found in await at.store.keys())])


@router.get("/keys/{id_}")
async def key(id_: str, at: At) -> dict[str, Any]:
    """One key."""
    for known in at.sites.current.settings.keys:
        if known.id == id_:
            return key_shown(known, "file")
    found = await _stored(id_, at)
    return key_shown(found.key, "admin", found)


@router.post("/keys/{id_}/rotate", status_code=201)
async def rotate(id_: str, at: At, who: Actor, body: RotateBody | None = None) -> dict[str, Any]:
    """A successor with a secret of its own; the old one holds for the overlap.  Limits are copied and begin anew."""
    _not_of_file(id_, at)
    secret = new_secret()
    fresh = _key("", "", secret, None)
    found = await at.store.rotate_key(id_, fresh, body.overlap_s if body else OVERLAP_S, who)
    return {**key_shown(found.key, "admin", found), "secret": secret, "replaces": id_}


@router.post("/keys/{id_}/revoke")
async def revoke(id_: str, at: At, who: Actor) -> dict[str, Any]:
    """It proves nothing any more, everywhere within about a second."""
    _not_of_file(id_, at)
    await at.store.revoke_key(id_, who)
    return await key(id_, at)


@router.delete("/keys/{id_}", status_code=204)
async def delete_key(id_: str, at: At, who: Actor) -> None:
    """As revoke: what a key did stays known."""
    _not_of_file(id_, at)
    await at.store.revoke_key(id_, who)


def _key(tenant: str, name: str, secret: str, body: KeyBody | None) -> Key:
    models = tuple(body.models) if body else ("*",)
    expires = body.expires if body else None
    endpoints = tuple(body.endpoints) if body else ("*",)
    id_ = f"key_{secrets.token_hex(8)}"
    return Key(id_, tenant, name, hash_key(secret), expires, models, endpoints=endpoints)


async def _stored(id_: str, at: Desk) -> StoredKey:
    for found in await at.store.keys():
        if found.key.id == id_:
            return found
    raise missing("key", id_)


def _not_of_file(id_: str, at: Desk) -> None:
    known = next((key for key in at.sites.current.settings.keys if key.id == id_), None)
    if known is not None:
        at.editable(known.tenant)
        raise NotFound(f"There is no stored key {id_!r}.")

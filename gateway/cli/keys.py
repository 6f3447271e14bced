"""`tollgate keys`: keys of stored tenants, in the database itself.

The database rather than the admin API: it works before the first start and while no gateway runs, sends no admin key
anywhere, and who can open the database is the operator already.  Every gateway on it follows within a second, and the
log of changes names who did it.
"""

from __future__ import annotations

import getpass
import secrets
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import (
    CONFIG,
    ConfigOption,
    JsonOption,
    TenantOption,
    as_json,
    as_table,
    fail,
    moment,
    settings_of,
    with_store,
)

if TYPE_CHECKING:
    from gateway.sql.tenants import Store, StoredKey
    from gateway.types import Key

keys = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke keys of tenants in the database.")

TenantArgument = Annotated[str, typer.Argument(help="The tenant's id.")]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `keys list` shows it.")]


@keys.command()
def create(
    tenant: TenantArgument,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    model: Annotated[list[str] | None, typer.Option(help="A route or deployment it may ask for; repeatable.")] = None,
    new_tenant: Annotated[bool, typer.Option("--new-tenant", help="Make the tenant, too.")] = False,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Make a key.  Its secret is shown once and kept nowhere."""
    from gateway.types import Tenant

    if tenant in {known.id for known in settings_of(config, json=json).tenants}:
        fail(
            f"Tenant {tenant!r} stands in {config}: `tollgate keys hash --new` makes a key and the line to add there.",
            json=json,
        )
    secret, key = _fresh(tenant, name, tuple(model or ("*",)))

    async def work(store: Store) -> StoredKey:
        if new_tenant:
            await store.create_tenant(Tenant(tenant), _actor())
        return await store.create_key(key, _actor())

    _told_once(with_store(config, work, json=json), secret, json=json)


@keys.command()
def rotate(
    key: KeyArgument,
    overlap_s: Annotated[float, typer.Option(min=0, help="Seconds for which the old secret still holds.")] = 86_400,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Put a new key in the place of one, with its name, models and budgets."""
    secret, fresh = _fresh("", "", ())
    stored = with_store(config, lambda store: store.rotate_key(key, fresh, overlap_s, _actor()), json=json)
    _told_once(stored, secret, json=json)


@keys.command()
def revoke(key: KeyArgument, config: ConfigOption = CONFIG, json: JsonOption = False) -> None:
    """End a key, everywhere within a second."""
    with_store(config, lambda store: store.revoke_key(key, _actor()), json=json)
    if json:
        as_json({"id": key, "revoked": True})
    else:
        typer.echo(f"Key {key} is revoked.")


@keys.command(name="list")
def list_(
    tenant: TenantOption = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """List keys, revoked ones too."""
    found = with_store(config, lambda store: store.keys(tenant), json=json)
    if json:
        as_json([_described(stored) for stored in found])
        return
    columns = ("id", "tenant", "name", "models", "created", "expires", "revoked")
    rows = [
        (
            stored.key.id,
            stored.key.tenant,
            stored.key.name,
            " ".join(stored.key.models),
            moment(stored.created),
            moment(stored.key.expires),
            moment(stored.revoked),
        )
        for stored in found
    ]
    as_table("Keys", columns, rows)


@keys.command(name="hash")
def hash_(
    new: Annotated[bool, typer.Option("--new", help="Make a secret instead of reading one.")] = False,
    json: JsonOption = False,
) -> None:
    """Hash a secret for `keys:` in the settings; needs no database.  Reads stdin, so that no shell remembers it."""
    from gateway.tenants import hash_key, new_secret

    if new:
        secret = new_secret()
    else:
        secret = getpass.getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if len(secret) < 8:
        fail("A secret has at least 8 characters.", json=json)
    hashed = f"sha256:{hash_key(secret).hex()}"
    if json:
        as_json({"hash": hashed, **({"secret": secret} if new else {})})
        return
    if new:
        typer.echo(f"secret: {secret}")
    typer.echo(f"hash: {hashed}")


def _fresh(tenant: str, name: str, models: tuple[str, ...]) -> tuple[str, Key]:
    from gateway.tenants import hash_key, new_secret
    from gateway.types import Key

    secret = new_secret()
    return secret, Key(f"k_{secrets.token_hex(6)}", tenant, name, hash_key(secret), models=models)


def _told_once(stored: StoredKey, secret: str, *, json: bool) -> None:
    if json:
        as_json({**_described(stored), "secret": secret})
        return
    typer.echo(f"Key {stored.key.id} ({stored.key.name}) of tenant {stored.key.tenant}, shown this once:")
    typer.secho(secret, bold=True)


def _described(stored: StoredKey) -> dict[str, Any]:
    return {
        "id": stored.key.id,
        "tenant": stored.key.tenant,
        "name": stored.key.name,
        "models": list(stored.key.models),
        "created": stored.created,
        "expires": stored.key.expires,
        "revoked": stored.revoked,
    }


def _actor() -> str:
    return f"cli:{getpass.getuser()}"

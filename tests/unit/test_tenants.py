from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.errors import Suspended, Unauthorized
from gateway.tenants import Directory, hash_key, new_secret, permits
from gateway.types import Key, Limit, Tenant, Unit, Window

ACME = Tenant("acme", models=("auto", "gpt-*"))
LIMIT = Limit("tenant", Unit.COST, 5, Window())


def key(secret: str = "s3cret", **more: object) -> Key:
    return replace(Key("acme:prod", "acme", "prod", hash_key(secret)), **more)  # type: ignore[arg-type]


def test_a_secret_finds_its_key_and_tenant() -> None:
    directory = Directory([ACME], [key()])
    assert directory.find("s3cret", now=0) == (ACME, key())
    assert directory.authenticate("s3cret", now=0) == (ACME, key())


@pytest.mark.parametrize("secret", ["", "S3cret", "s3cret ", "wrong", "\udce4"])
def test_a_wrong_secret_finds_nothing_and_is_unauthorized(secret: str) -> None:
    directory = Directory([ACME], [key()])
    assert directory.find(secret, now=0) is None
    with pytest.raises(Unauthorized) as refused:
        directory.authenticate(secret, now=0)
    assert not secret or secret not in str(refused.value)


def test_a_secret_that_begins_or_ends_as_a_right_one_does_proves_nothing() -> None:
    mine, theirs = new_secret(), new_secret()
    directory = Directory([ACME], [key(mine), replace(key(theirs), id="acme:other", name="other")])
    assert directory.find(mine, now=0) == (ACME, key(mine))
    for close in (mine[:-1], mine[:-1] + "~", mine + "x", "~" + mine[1:], mine[:23] + theirs[23:], mine[:23]):
        assert directory.find(close, now=0) is None


def test_the_digest_itself_is_no_secret() -> None:
    directory = Directory([ACME], [key()])
    for text in (hash_key("s3cret").hex(), f"sha256:{hash_key('s3cret').hex()}"):
        assert directory.find(text, now=0) is None


def test_a_key_holds_until_the_moment_it_expires() -> None:
    directory = Directory([ACME], [key(expires=100.0)])
    assert directory.find("s3cret", now=99.9) is not None
    assert directory.find("s3cret", now=100.0) is None
    with pytest.raises(Unauthorized, match="'prod' has expired"):
        directory.authenticate("s3cret", now=100.0)


def test_a_suspended_tenant_is_told_so() -> None:
    with pytest.raises(Suspended, match="acme"):
        Directory([replace(ACME, suspended=True)], [key()]).authenticate("s3cret", now=0)


def test_what_comes_first_holds_over_a_stored_one_with_its_id() -> None:
    stored = replace(ACME, suspended=True)
    directory = Directory([ACME, stored], [key("new"), key("old")])
    assert list(directory.tenants) == [ACME]
    assert directory.find("new", now=0) == (ACME, key("new"))
    assert directory.find("old", now=0) is None


def test_a_key_of_a_tenant_that_is_gone_proves_nothing() -> None:
    assert Directory([], [key()]).find("s3cret", now=0) is None


def test_a_request_counts_against_the_tenants_limits_and_the_keys_own() -> None:
    own = replace(LIMIT, account="key")
    tenant, mine = replace(ACME, limits=(LIMIT,)), key(limits=(own,))
    assert Directory([tenant], [mine]).limits_for(tenant, mine) == (LIMIT, own)
    assert Directory([], []).limits_for(tenant, mine) == (LIMIT, own)


def test_a_model_must_be_permitted_by_tenant_and_key() -> None:
    narrow = key(models=("gpt-mini",))
    assert permits(ACME, key(), "auto")
    assert permits(ACME, key(), "gpt-mini")
    assert not permits(ACME, key(), "sonnet")
    assert permits(ACME, narrow, "gpt-mini")
    assert not permits(ACME, narrow, "auto")
    assert not permits(Tenant("none", models=()), key(), "auto")


def test_a_pattern_does_not_ignore_case() -> None:
    assert not permits(ACME, key(), "AUTO")


def test_secrets_are_long_and_differ() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(secret.startswith("tg-") and len(secret) == 46 for secret in secrets)

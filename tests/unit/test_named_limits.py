"""A limit `of` one account names one that there is, or it is said that nobody has the name."""

from __future__ import annotations

import pytest

from gateway.settings import Settings, SettingsError, parse

FILE = """
providers:
  sim: {dialect: simulated}
  groq: {api_key: "${KEY}", optional: true}
deployments:
  - {id: small, provider: sim, upstream_model: sim-small, price: {input: 1, output: 1}}
  - {id: llama, provider: groq, upstream_model: llama-3.3-70b-versatile}
routes:
  auto: {candidates: [small]}
tenants:
  - id: acme
    organisation: umbrella
    keys: [{name: prod, key: a-long-secret, budgets: [OF_KEY]}]
    budgets: [OF_TENANT]
limits: [OF_EVERYONE]
"""
PLACES = {"OF_KEY": "tenants[0].keys[0].budgets[0]", "OF_TENANT": "tenants[0].budgets[0]", "OF_EVERYONE": "limits[0]"}


def read(account: str, of: str, place: str = "OF_EVERYONE") -> Settings:
    limit = f"{{id: it, account: {account}, of: '{of}', limit_usd: 1, window: day}}"
    text = FILE.replace(place, limit)
    for other in PLACES:
        text = text.replace(other, "")
    return parse(text, {})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("account", "of", "hint"),
    [
        ("deployment", "smal", "did you mean 'small'?"),
        ("provider", "simm", "did you mean 'sim'?"),
        ("model", "atuo", "did you mean 'auto'?"),
        ("deployment", "sim", "known: llama, small"),
    ],
)
def test_a_limit_of_a_place_or_model_that_is_not_there_is_an_error(
    place: str, account: str, of: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(account, of, place)
    (problem,) = refused.value.problems
    assert f"{PLACES[place]}.of: there is no {account} {of!r}; {hint}" in str(problem)


def test_everyone_together_is_called_all() -> None:
    assert read("global", "all").limits[0].of == "all"
    with pytest.raises(SettingsError, match=r"there is no global 'everybody'; known: all"):
        read("global", "everybody")


@pytest.mark.parametrize(
    ("account", "of"),
    [("deployment", "llama"), ("provider", "groq"), ("model", "llama"), ("model", "sim-small"), ("user", "whoever")],
)
def test_what_is_left_out_for_now_and_what_only_requests_tell_may_be_named(account: str, of: str) -> None:
    assert not [notice for notice in read(account, of).notices if "limit" in notice]


@pytest.mark.parametrize(
    ("account", "wrong", "right"),
    [("tenant", "acmee", "acme"), ("key", "acme:prd", "acme:prod"), ("organisation", "umbrela", "umbrella")],
)
def test_a_limit_of_a_tenant_or_key_that_an_administrator_may_have_made_is_noticed(
    account: str, wrong: str, right: str
) -> None:
    said = f"limit 'it' is of {account} {wrong!r}, which is not in this file"
    assert said in read(account, wrong).notices
    assert not [notice for notice in read(account, right).notices if "limit" in notice]

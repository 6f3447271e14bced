"""Budgets and rates of the file as limits; the master key as a tenant's."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.configuration.quantities import LIMIT_USD_MAX
from gateway.imports.base import Draft, Section, plain
from gateway.imports.litellm.accounts import secret
from gateway.imports.litellm.models import Member

CALENDAR = {"1h": "hour", "1d": "day", "24h": "day", "7d": "week", "30d": "month", "1mo": "month", "1m": "minute"}
"""Lengths after which LiteLLM resets at the turn of a calendar window."""
TENANT = "default"


def window(draft: Draft, path: tuple[str | int, ...], duration: object) -> dict[str, Any]:
    """LiteLLM's duration as a window; without one a budget is for ever."""
    if duration is None:
        return {"window": "total"}
    text = str(duration)
    if text in CALENDAR:
        return {"window": CALENDAR[text]}
    if text[:-1].isdigit() and int(text[:-1]) > 0 and text[-1:] in "smhdw":
        draft.note(
            path, f"a budget for {text} holds in any {text} here, which is stricter than one that is reset every {text}"
        )
        return {"rolling": text}
    draft.note(path, f"{text!r} is no length of time known here; the budget holds for ever")
    return {"window": "total"}


def budget(section: Section, amount: str = "max_budget", duration: str = "budget_duration") -> dict[str, Any] | None:
    """The money limit a mapping states, without its account."""
    limit = section.number(amount)
    lasts = section.take(duration)
    if limit is None:
        return None
    return dollars(section, amount, limit) | window(section.draft, (*section.path, duration), lasts)


def dollars(section: Section, name: str, amount: Decimal) -> dict[str, Any]:
    """As many as the ledger counts, to the nano-dollar, rounded down."""
    exact = (
        min(amount.quantize(Decimal("1e-9"), "ROUND_DOWN"), Decimal(LIMIT_USD_MAX))
        if amount < 10**15
        else Decimal(LIMIT_USD_MAX)
    )
    if exact != amount:
        section.draft.note(
            (*section.path, name),
            f"became {exact.normalize():f}: a budget here has nine decimals and at most {LIMIT_USD_MAX} dollars",
        )
    return {"limit_usd": plain(exact) if exact == exact.to_integral_value() else f"{exact.normalize():f}"}


def everyones(
    settings: Section, router: Section, general: Section, vendors: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """Limits of all together: the proxy's budget, the providers' and the tags'."""
    found: list[dict[str, Any]] = []
    if limit := budget(settings):
        found.append({"account": "global", **limit})
    providers = router.section("provider_budget_config")
    for vendor in list(providers.value):
        limit = budget(providers.section(vendor), *_provider_words(providers.section(vendor)))
        ours = vendors.get(vendor, [])
        if limit is None or not ours:
            providers.note(vendor, "no deployment here is at this provider; left out")
            continue
        if len(ours) > 1:
            share = Decimal(str(limit["limit_usd"])) / len(ours)
            limit |= dollars(providers.section(vendor), "budget_limit", share)
            providers.note(
                vendor,
                f"is {len(ours)} accounts here ({', '.join(ours)}): each has an equal part of the budget",
            )
        found += [{"account": "provider", "of": id_, **limit} for id_ in ours]
    tags = settings.section("tag_budget_config")
    for tag in list(tags.value):
        if limit := budget(tags.section(tag)):
            name, colon, value = str(tag).partition(":")
            name, value = (name, value) if colon else ("tag", name)
            found.append({"account": f"tag:{name}", "of": value, **limit})
            tags.note(tag, f"clients name the tag with the header `x-tollgate-tags: {name}={value}`")
    if (most := general.count("global_max_parallel_requests")) is not None:
        found.append({"account": "global", "concurrent": most})
    return found


def _provider_words(section: Section) -> tuple[str, str]:
    return ("budget_limit", "time_period") if "budget_limit" in section else ("max_budget", "budget_duration")


def deployments(groups: Mapping[str, list[Member]]) -> list[dict[str, Any]]:
    """What the deployments' own rpm, tpm and budgets allow."""
    found: list[dict[str, Any]] = []
    for member in (member for members in groups.values() for member in members):
        account = {"account": "deployment", "of": member.id}
        if member.requests_per_minute:
            found.append({**account, "requests": member.requests_per_minute, "rolling": "60s"})
        if member.tokens_per_minute:
            found.append({**account, "tokens": member.tokens_per_minute, "rolling": "60s"})
        if member.budget:
            params = member.section.section("litellm_params")
            amount, duration = member.budget
            lasts = window(params.draft, (*params.path, "budget_duration"), duration)
            found.append({**account, **dollars(params, "max_budget", amount), **lasts})
    return found


def tenant(settings: Section, general: Section) -> dict[str, Any]:
    """Whoever holds the key that opened the proxy."""
    shape: dict[str, Any] = {"id": TENANT}
    draft = settings.draft
    if "master_key" in general:
        reference = secret(
            general, "master_key", "LITELLM_MASTER_KEY", "the key clients already use: LiteLLM's master key"
        )
        draft.note(
            (*general.path, "master_key"),
            "opens the models here and nothing else: the admin API has a key of its own, TOLLGATE_ADMIN_KEY; better "
            "still, give each client a tenant and a key with `tollgate keys create`",
        )
    else:
        reference = draft.variable("TOLLGATE_KEY", "secret", "the key clients send: nobody is served without one")
        draft.note((), "LiteLLM without a master_key serves everyone; here clients need TOLLGATE_KEY")
    shape["keys"] = [{"name": "clients", "key": reference}]
    if settings.flag("drop_params"):
        shape["drop_params"] = True
    budgets = []
    limit = settings.number("max_end_user_budget")
    if limit is not None:
        budgets.append({"account": "user", **dollars(settings, "max_end_user_budget", limit), "window": "total"})
    if personal := budget(settings, "max_internal_user_budget", "internal_user_budget_duration"):
        draft.note((*settings.path, "max_internal_user_budget"), "holds for each user that requests name")
        budgets.append({"account": "user", **personal})
    if budgets:
        shape["budgets"] = budgets
    draft.note((), "keys, teams and users of LiteLLM's database are not in this file: make tenants and keys for them")
    return shape

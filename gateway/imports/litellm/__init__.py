"""LiteLLM's proxy configuration as one of ours; see gateway.imports.base for what is promised."""

from __future__ import annotations

import time
from typing import Any

from gateway.configuration.places import priced
from gateway.configuration.presets import Known, known
from gateway.document import SettingsError, read
from gateway.imports.base import Converted, Draft, NotConvertible, Section
from gateway.imports.litellm import limits
from gateway.imports.litellm.accounts import Accounts, patience
from gateway.imports.litellm.models import Member, Models
from gateway.imports.litellm.routes import Fallbacks, Routes
from gateway.imports.litellm.surroundings import surroundings
from gateway.settings import parse

PORT = 4000
"""LiteLLM's own, so that its clients find us where it was."""


def convert(text: str, name: str, *, free: bool = False) -> Converted:
    """The configuration in `text`, called `name` in notes.

    `free`: a model whose price nobody knows costs nothing, as LiteLLM counts it, instead of being left out where a
    budget is hard.  Raises SettingsError for what is no YAML, NotConvertible for what is no such configuration.
    """
    document = read(text.replace("${", "$${"), {}, name)
    draft = Draft(document, notes=list(document.problems))
    if not isinstance(document.value, dict) or not isinstance(document.value.get("model_list"), list):
        raise NotConvertible(f"{name} is not a LiteLLM configuration: it has no model_list")
    top = Section.of(draft, (), document.value)
    settings, router, general = (
        top.section(part) for part in ("litellm_settings", "router_settings", "general_settings")
    )
    facts = known(None, {})
    groups, accounts = _groups(top, settings, router, general, facts)
    if not any(groups.values()):
        raise NotConvertible(f"{name} has no model that can be carried over:\n" + "\n".join(map(str, draft.notes)))
    draft.sections |= surroundings(top, settings, router, general, PORT)
    draft.sections["providers"] = accounts.shapes
    everyone = limits.everyones(settings, router, general, accounts.vendors)
    payer = limits.tenant(settings, general)
    hard = any("limit_usd" in limit for limit in (*everyone, *payer.get("budgets", ())))
    hard = hard or any(member.budget for members in groups.values() for member in members)
    groups = _with_prices(draft, groups, hard=hard, free=free)
    _routed(draft, groups, settings, router)
    draft.sections["tenants"] = [payer]
    draft.sections["limits"] = everyone + limits.deployments(groups)
    for section in (settings, router, general, top):
        section.close()
    _check(draft)
    return draft.converted(f"# Made of {name} by `tollgate import`.  Read its notes before you use it.\n")


def _groups(
    top: Section, settings: Section, router: Section, general: Section, facts: Known
) -> tuple[dict[str, list[Member]], Accounts]:
    timeouts = patience(settings, "request_timeout") | patience(router)
    retries = router.number("num_retries")
    also = settings.number("num_retries")
    retries = also if retries is None else retries
    accounts = Accounts(top.draft, timeouts, None if retries is None else int(retries))
    concurrency = router.count("default_max_parallel_requests") or general.count("max_parallel_requests")
    credentials: dict[str, dict[str, Any]] = {}
    for entry in top.entries("credential_list"):
        credentials[str(entry.take("credential_name"))] = dict(entry.section("credential_values").value)
        entry.take("credential_info")
        entry.close()
    models = Models(accounts, facts, time.time(), concurrency, credentials)
    models.read(top.entries("model_list"))
    return models.groups, accounts


def _with_prices(draft: Draft, groups: dict[str, list[Member]], *, hard: bool, free: bool) -> dict[str, list[Member]]:
    """The groups with what may be served: a hard budget cannot cover a model without a price."""
    members = [member for members in groups.values() for member in members]
    shapes = [{"id": f"d{number}", **member.shape} for number, member in enumerate(members)]
    trial = Draft(draft.document, {"providers": draft.sections["providers"], "deployments": shapes})
    placed = parse(trial.text(), draft.examples()).deployments
    left_out: list[Member] = []
    for number, member in enumerate(members):
        if priced(placed[f"d{number}"]):
            continue
        model = member.shape["upstream_model"]
        if free:
            member.shape["price"] = {"input": 0, "output": 0}
            draft.note(member.section.path, f"{model} has no known price and costs nothing here, as you asked")
        elif hard:
            left_out.append(member)
            words = "a hard budget cannot cover it; left out: state its price in model_info, or use --free"
            draft.note(member.section.path, f"{model} has no known price, and {words}")
        else:
            draft.note(
                member.section.path, f"{model} has no known price: its spend is counted as unknown; state `price:`"
            )
    kept = {name: [member for member in members if member not in left_out] for name, members in groups.items()}
    return {name: members for name, members in kept.items() if members}


def _routed(draft: Draft, groups: dict[str, list[Member]], settings: Section, router: Section) -> None:
    fallbacks = Fallbacks()
    for section in (router, settings):
        fallbacks.read(section, "fallbacks")
        fallbacks.default += [name for name in section.names("default_fallbacks") if name not in fallbacks.default]
        if "context_window_fallbacks" in section:
            fallbacks.read(section, "context_window_fallbacks")
            words = (
                "are fallbacks like the others: what does not fit is never tried, and they also serve when calls fail"
            )
            section.note("context_window_fallbacks", words)
        if "content_policy_fallbacks" in section:
            fallbacks.filtered.update(fallbacks.read(section, "content_policy_fallbacks"))
            words = (
                "are fallbacks like the others, asked after a filter's refusal too, and they also serve when calls fail"
            )
            section.note("content_policy_fallbacks", words)
    strategy = str(router.take("routing_strategy") or "simple-shuffle")
    Routes(draft, groups, fallbacks, strategy).place(router)


def _check(draft: Draft) -> None:
    """What is still wrong with the result, as its own check says it."""
    try:
        parse(draft.text(), draft.examples())
    except SettingsError as error:
        for problem in error.problems:
            draft.note((), f"the result needs your hand: {problem.key}: {problem.message}")

"""`model_list`: each entry as a deployment and its place in the group that clients ask for by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.configuration import price_list
from gateway.configuration.presets import Known
from gateway.imports.base import NAME, Section
from gateway.imports.litellm import prices
from gateway.imports.litellm.accounts import Accounts, patience
from gateway.imports.litellm.vendors import VENDORS, split

SENT_BY_CLIENTS = frozenset(
    (
        *("temperature", "top_p", "top_k", "seed", "stop", "n", "user", "frequency_penalty", "presence_penalty"),
        *("reasoning_effort", "thinking", "response_format", "max_completion_tokens", "extra_body", "logit_bias"),
        *("merge_reasoning_content_in_choices", "service_tier", "stream", "modalities"),
    )
)
"""Parameters that LiteLLM adds to requests; here a request goes out as its client wrote it."""
CREDENTIALS = "litellm_credential_name"


@dataclass(slots=True)
class Member:
    """One deployment of a group."""

    shape: dict[str, Any]  # of ours, without its id
    section: Section  # the entry
    provider: str
    id: str = ""
    mode: str = "chat"
    order: Decimal | None = None
    weight: Decimal | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    answer_tokens: int | None = None  # where a client names no maximum
    budget: tuple[Decimal, str | None] | None = None  # dollars, duration


@dataclass(slots=True)
class Models:
    """Reads the entries into groups, in the order of the file."""

    accounts: Accounts
    known: Known
    now: float
    concurrency: int | None
    credentials: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, list[Member]] = field(default_factory=dict)

    def read(self, entries: list[Section]) -> None:
        """Adds every entry; wildcards last, so that they never hide a model that is named."""
        wild: list[tuple[str, Section, Section]] = []
        for entry in entries:
            asked, params = str(entry.take("model_name") or ""), self._params(entry)
            model = params.value.get("model")
            if not asked or not isinstance(model, str):
                entry.draft.note(entry.path, "needs a model_name and a litellm_params.model; left out")
            elif "*" in asked or "*" in model:
                wild.append((asked, entry, params))
            else:
                self._entry(asked, model, entry, params)
        for asked, entry, params in wild:
            self._wildcard(asked, entry, params)

    def _params(self, entry: Section) -> Section:
        params = entry.section("litellm_params")
        if CREDENTIALS in params:
            name = str(params.take(CREDENTIALS))
            if name not in self.credentials:
                params.note(CREDENTIALS, f"there is no credential {name!r} in credential_list; its values are missing")
            params.value = {**self.credentials.get(name, {}), **params.value}
        return params

    def _entry(self, asked: str, model: str, entry: Section, params: Section) -> None:
        if not NAME.fullmatch(asked):
            entry.note("model_name", "has characters a model's name cannot have here; left out: give it another name")
            return
        if member := self._member(model, entry, params):
            self.groups.setdefault(asked, []).append(member)
            self._close(entry, params)

    def _member(self, model: str, entry: Section, params: Section) -> Member | None:
        params.take("model")
        based = any(name in params for name in ("api_base", "base_url"))
        vendor, name = split(model, str(params.take("custom_llm_provider") or ""), based)
        if vendor not in VENDORS:
            words = f"provider {vendor!r} is not known here" if vendor else f"it is not clear whose model {model!r} is"
            entry.draft.note(
                entry.path, f"{words}; left out: if it speaks OpenAI's format, add a provider with its base_url"
            )
            return None
        info = entry.section("model_info")
        named = info.take("id")
        provider = self.accounts.provider(params, vendor, name)
        if provider is None:
            return None
        shape: dict[str, Any] = {"provider": provider, "upstream_model": name}
        price = prices.price(info, params) or self._price_of_base(info, vendor)
        if price:
            shape["price"] = price
        shape |= prices.facts(info)
        if own := patience(params):
            shape["timeouts"] = self.accounts.timeouts | own
        if "region_name" in params:
            shape["region"] = str(params.take("region_name"))
        concurrency = params.count("max_parallel_requests") or self.concurrency
        if concurrency:
            shape["concurrency_max"] = concurrency
        id_ = named if isinstance(named, str) and NAME.fullmatch(named) else ""
        return self._placed(Member(shape, entry, provider, id_, str(info.take("mode") or "chat")), params)

    def _placed(self, member: Member, params: Section) -> Member:
        """With its share of the group's traffic and its limits."""
        member.order, member.weight = params.number("order"), params.number("weight")
        member.requests_per_minute, member.tokens_per_minute = params.count("rpm"), params.count("tpm")
        member.answer_tokens = params.count("max_tokens")
        if (budget := params.number("max_budget")) is not None:
            member.budget = (budget, params.take("budget_duration"))
        return member

    def _price_of_base(self, info: Section, vendor: str) -> dict[str, Any]:
        """Azure's deployments have names of their own; `base_model` says whose price holds."""
        base = info.take("base_model")
        if not isinstance(base, str):
            return {}
        book = "azure, openai" if vendor.startswith("azure") else vendor
        found = prices.listed(book, base.rpartition("/")[2], self.now, self.known)
        if found:
            info.note(
                "base_model",
                f"its list price of today stands in the file ({book.partition(',')[0]}); renew it when prices change",
            )
        else:
            info.note("base_model", "the price list does not know it; state the deployment's `price:`")
        return found

    def _wildcard(self, asked: str, entry: Section, params: Section) -> None:
        """A pattern as the models that the price list knows of that vendor."""
        vendor, pattern = split(str(params.value.get("model")), str(params.take("custom_llm_provider") or ""), False)
        if vendor in {"", "*"} and (known := asked.partition("/")[0]) in VENDORS:
            vendor, pattern = known, "*"
        names = self._sold(vendor) if vendor in VENDORS and pattern == "*" and asked.count("*") == 1 else []
        if not names:
            entry.draft.note(
                entry.path, f"{asked!r} matches models by pattern, and no price list says which; left out: name each"
            )
            return
        added = 0
        for name in names:
            wanted = asked.replace("*", name)
            if (
                wanted not in self.groups
                and NAME.fullmatch(wanted)
                and (member := self._member(f"{vendor}/{name}", entry, params))
            ):
                self.groups[wanted] = [member]
                added += 1
        entry.draft.note(
            entry.path,
            f"{asked!r} became the {added} models of {vendor} in the price list; newer ones will need a line each",
        )
        self._close(entry, params)

    def _sold(self, vendor: str) -> list[str]:
        preset = self.known.providers.get(VENDORS[vendor].preset)
        book = price_list.books(None).get(preset.prices) if preset else None
        return sorted(model.id for model in book.models if not model.deprecated) if book else []

    def _close(self, entry: Section, params: Section) -> None:
        """What of an entry has no counterpart, by name."""
        for name in list(params.unread()):
            if name in SENT_BY_CLIENTS:
                params.note(
                    name, "is not added to requests here: they go out as their clients wrote them; let clients send it"
                )
        params.note(
            "tags", "route nothing here: tenants ask for routes, and their `models` say which ones they may ask for"
        )
        params.note("mock_response", "is not sent; for trying things out there is a provider with dialect simulated")
        info = entry.section("model_info")
        for name in ("description", "litellm_provider", "db_model", "created_at", "updated_at"):
            info.take(name)
        for name in list(info.unread()):
            if name.startswith("supports_"):
                info.take(name)  # true: every model is taken to do it
        info.note(
            "team_id", "is not carried over: name the model in that tenant's `models`, and leave it out of others'"
        )
        info.note("access_groups", "are not carried over: list the models in each tenant's `models`")
        params.close()
        info.close()
        entry.close()

"""A statement: what to report, read from the database at one moment, and a closed month that can be proven later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Connection

from gateway.money import dollars
from gateway.reports.charges import Charge, Terms, charges, merged
from gateway.sql.records import Filter
from gateway.sql.spend import at_one_moment, spend

CLOSED_BY = ("tenant", "key", "provider", "deployment", "upstream_model", "outcome", "tag:team", "tag:cost_center")
"""How fine a closed month is kept: what changes in any of these is seen."""


@dataclass(frozen=True, slots=True)
class Currency:
    """Amounts are shown as dollars times `rate`, exactly: nothing is rounded."""

    code: str = "USD"
    rate: Decimal = Decimal(1)

    def shown(self, amount: int) -> str:
        """Nano-dollars in this currency."""
        return dollars(amount) if self.rate == 1 else f"{Decimal(dollars(amount)) * self.rate:f}"


def charged(connection: Connection, wanted: Filter, by: tuple[str, ...], terms: Terms) -> list[Charge]:
    """Charges by group, dearest first.  The grouping does not change the total.  ValueError for a wrong grouping."""
    at_one_moment(connection)
    lines = spend(connection, wanted, ("tenant", *by), None)
    peaks: dict[str, int] = {}
    if terms.by_peak and terms.shared:
        for each in spend(connection, wanted, ("tenant", "hour"), None):
            tenant = each.group[0] or ""
            peaks[tenant] = max(peaks.get(tenant, 0), each.input_tokens + each.output_tokens)
    return merged(charges(lines, peaks, terms), keep=1)


def columns(by: tuple[str, ...], currency: Currency) -> tuple[str, ...]:
    """Names of a statement's columns."""
    unit = currency.code.lower()
    money = ("cost_nano_usd", *(f"{name}_{unit}" for name in ("cost", "markup", "shared", "charge", "saved")))
    return (*by, "requests", "unknown_cost_requests", "input_tokens", "cached_tokens", "output_tokens", *money)


def rows(found: list[Charge], by: tuple[str, ...], currency: Currency) -> Iterator[dict[str, Any]]:
    """A statement's rows."""
    names = columns(by, currency)
    for each in found:
        line = each.sums
        counts = (line.requests, line.unknown, line.input_tokens, line.cached_tokens, line.output_tokens)
        amounts = (line.cost, each.markup, each.shared, each.total, line.baseline - line.compared)
        yield dict(zip(names, (*line.group, *counts, line.cost, *map(currency.shown, amounts)), strict=True))


def month_of(text: str) -> tuple[float, float]:
    """The unix seconds in which a month such as 2026-11 begins and ends (UTC).  ValueError."""
    try:
        start = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{text!r} is no month: write one such as 2026-11") from None
    after = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start.timestamp(), after.timestamp()


def closed(connection: Connection, month: str, terms: Terms) -> dict[str, Any]:
    """A month as it stands now, with a digest over all of it.  The same records and terms give the same bytes."""
    since, until = month_of(month)
    found = charged(connection, Filter(since=since, until=until), CLOSED_BY, terms)
    lines = sorted(
        (
            [*each.sums.group, each.sums.requests, each.sums.unknown, each.sums.cost, each.markup, each.shared]
            for each in found
        ),
        key=repr,
    )
    document: dict[str, Any] = {
        "month": month,
        "by": list(CLOSED_BY),
        "figures": ["requests", "unknown_cost_requests", "cost", "markup", "shared"],
        "terms": _written(terms),
        "lines": lines,
        "total_nano_usd": sum(each.total for each in found),
    }
    return {**document, "sha256": digest(document)}


def digest(document: Mapping[str, Any]) -> str:
    """Over everything but the digest itself."""
    body = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def differences(connection: Connection, document: Mapping[str, Any]) -> list[str]:
    """What the records say otherwise than the closed month, in words; none: it is reproduced to the nano-dollar."""
    if digest(document) != document.get("sha256"):
        return ["the file was changed: its digest does not fit"]
    again = closed(connection, document["month"], _read(document["terms"]))
    size = len(document["by"])
    then = {tuple(line[:size]): line[size:] for line in document["lines"]}
    now = {tuple(line[:size]): line[size:] for line in again["lines"]}
    return [
        f"{', '.join(str(part) for part in group if part)}: "
        f"was {then.get(group, 'nothing')}, is {now.get(group, 'nothing')}"
        for group in sorted(then.keys() | now.keys(), key=repr)
        if then.get(group) != now.get(group)
    ]


def _written(terms: Terms) -> dict[str, Any]:
    return {
        "markup": str(terms.markup),
        "markups": {tenant: str(share) for tenant, share in sorted(terms.markups.items())},
        "shared_nano_usd": terms.shared,
        "by_tokens": str(terms.by_tokens),
        "by_peak": str(terms.by_peak),
    }


def _read(written: Mapping[str, Any]) -> Terms:
    return replace(
        Terms(),
        markup=Decimal(written["markup"]),
        markups={tenant: Decimal(share) for tenant, share in written["markups"].items()},
        shared=written["shared_nano_usd"],
        by_tokens=Decimal(written["by_tokens"]),
        by_peak=Decimal(written["by_peak"]),
    )

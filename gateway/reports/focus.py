"""Charges as a FOCUS 1.0 data set, and that specification's rules for the columns we give (focus.finops.org).

One row per tenant, key, deployment, tag and day.  Calls without a known price have no cost in FOCUS: they are counted
in `x_UnknownCostRequests`.  Nothing is known of list prices or commitments, so all four costs are what was charged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import orjson

from gateway.money import dollars
from gateway.reports.charges import Charge

BY = ("tenant", "key", "provider", "deployment", "upstream_model", "day", "tag:team", "tag:feature", "tag:cost_center")
"""What the rows are grouped by."""
ISSUER = "Tollgate"
CATEGORY = "AI and Machine Learning"
TIME = "%Y-%m-%dT%H:%M:%SZ"

Row: TypeAlias = dict[str, str | None]
_Rule: TypeAlias = Callable[[str | None], bool]


def rows(charged: Iterable[Charge]) -> Iterator[Row]:
    """Charges grouped by `BY` -> rows."""
    for each in charged:
        values = dict(zip(BY, each.sums.group, strict=True))
        day = datetime.fromisoformat(f"{values['day']}T00:00:00+00:00")
        month = day.replace(day=1)
        cost, tokens = dollars(each.total), str(each.sums.input_tokens + each.sums.output_tokens)
        tags = {name.removeprefix("tag:"): value for name, value in values.items() if name.startswith("tag:") and value}
        yield {
            "BilledCost": cost,
            "BillingAccountId": values["tenant"],
            "BillingAccountName": values["tenant"],
            "BillingCurrency": "USD",
            "BillingPeriodStart": month.strftime(TIME),
            "BillingPeriodEnd": (month + timedelta(32)).replace(day=1).strftime(TIME),
            "ChargeCategory": "Usage",
            "ChargeClass": None,
            "ChargeDescription": f"{values['upstream_model']} through {values['deployment']}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": day.strftime(TIME),
            "ChargePeriodEnd": (day + timedelta(1)).strftime(TIME),
            "ConsumedQuantity": tokens,
            "ConsumedUnit": "Tokens",
            "ContractedCost": cost,
            "EffectiveCost": cost,
            "InvoiceIssuerName": ISSUER,
            "ListCost": cost,
            "PricingQuantity": tokens,
            "PricingUnit": "Tokens",
            "ProviderName": values["provider"],
            "PublisherName": values["provider"],
            "ResourceId": values["deployment"],
            "ResourceName": values["deployment"],
            "ResourceType": "Model deployment",
            "ServiceCategory": CATEGORY,
            "ServiceName": values["upstream_model"],
            "SubAccountId": values["key"],
            "SubAccountName": values["key"],
            "Tags": orjson.dumps(tags, option=orjson.OPT_SORT_KEYS).decode(),
            "x_Requests": str(each.sums.requests),
            "x_UnknownCostRequests": str(each.sums.unknown),
        }


def _time(value: str | None) -> bool:
    return value is not None and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value))


def _number(value: str | None) -> bool:
    try:
        return value is not None and "E" not in value.upper() and Decimal(value).is_finite()
    except InvalidOperation:
        return False


def _words(value: str | None) -> bool:
    return bool(value)


def _maybe(value: str | None) -> bool:
    return value is None or bool(value)


def _one_of(*allowed: str | None) -> _Rule:
    return lambda value: value in allowed


def _tags(value: str | None) -> bool:
    try:
        found: Any = orjson.loads(value or "")
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and all(isinstance(each, str | bool | int | float) for each in found.values())


MANDATORY: Mapping[str, _Rule] = {
    "BilledCost": _number,
    "BillingAccountId": _words,
    "BillingAccountName": _maybe,
    "BillingCurrency": lambda value: bool(re.fullmatch(r"[A-Z]{3}", value or "")),
    "BillingPeriodEnd": _time,
    "BillingPeriodStart": _time,
    "ChargeCategory": _one_of("Usage", "Purchase", "Tax", "Credit", "Adjustment"),
    "ChargeClass": _one_of(None, "Correction"),
    "ChargeDescription": _maybe,
    "ChargePeriodEnd": _time,
    "ChargePeriodStart": _time,
    "ContractedCost": _number,
    "EffectiveCost": _number,
    "InvoiceIssuerName": _words,
    "ListCost": _number,
    "PricingQuantity": _number,
    "PricingUnit": _words,
    "ProviderName": _words,
    "PublisherName": _words,
    "ServiceCategory": _one_of(CATEGORY),
    "ServiceName": _words,
}
"""Columns that FOCUS 1.0 wants in every data set, and what a value of ours may be there."""
OTHERS: Mapping[str, _Rule] = {
    "ChargeFrequency": _one_of("One-Time", "Recurring", "Usage-Based"),
    "ConsumedQuantity": _number,
    "ConsumedUnit": _words,
    "ResourceId": _maybe,
    "ResourceName": _maybe,
    "ResourceType": _words,
    "SubAccountId": _maybe,
    "SubAccountName": _maybe,
    "Tags": _tags,
}

OWN = ("x_Requests", "x_UnknownCostRequests")
"""Columns of our own."""


def problems(found: Iterable[Mapping[str, str | None]]) -> Iterator[str]:
    """What of these rows FOCUS does not allow, in words with the row's number from 1."""
    for number, row in enumerate(found, 1):
        for name, rule in {**MANDATORY, **OTHERS}.items():
            if name not in row:
                if name in MANDATORY:
                    yield f"row {number}: {name} is missing"
            elif not rule(row[name]):
                yield f"row {number}: {name} cannot be {row[name]!r}"
        for name in row:
            if name not in MANDATORY and name not in OTHERS and not re.fullmatch(r"x_[A-Z]\w*", name):
                yield f"row {number}: {name} is no column of FOCUS; a column of one's own begins with x_"
        yield from _periods(number, row)


def _periods(number: int, row: Mapping[str, str | None]) -> Iterator[str]:
    """Times as text sort as they follow each other."""
    ends = [row.get(f"{kind}Period{edge}") or "" for kind, edge in (("Billing", "Start"), ("Charge", "Start"))]
    ends += [row.get("ChargePeriodEnd") or "", row.get("BillingPeriodEnd") or ""]
    if not (ends[0] <= ends[1] < ends[2] <= ends[3]):
        yield f"row {number}: the charge period is not within the billing period"

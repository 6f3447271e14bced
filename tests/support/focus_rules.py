"""What FOCUS 1.2 wants of a data set of cost and usage, as far as it can be told from the rows (focus.finops.org).

Written from the normative requirements of each column and attribute; a rule's words are in the message it gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal, localcontext
from typing import TypeAlias

Row: TypeAlias = Mapping[str, str | None]

NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")
TIME = re.compile(r"\d{4}-(0\d|1[0-2])-([0-2]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")
SERVICES = {
    "AI and Machine Learning": {
        *("AI Platforms", "Bots", "Generative AI", "Machine Learning", "Natural Language Processing"),
        "Other (AI and Machine Learning)",
    },
    **dict.fromkeys(
        (
            *(
                "Analytics",
                "Business Applications",
                "Compute",
                "Databases",
                "Developer Tools",
                "Multicloud",
                "Identity",
            ),
            *("Integration", "Internet of Things", "Management and Governance", "Media", "Migration", "Mobile"),
            *("Networking", "Security", "Storage", "Web", "Other"),
        )
    ),
}
"""Categories, and the subcategories of the one that we are in; None: not looked at."""
MANDATORY = frozenset(
    {
        *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
        *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd"),
        *("ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity"),
        *("PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
    }
)
NULLABLE = frozenset(
    {
        *("BillingAccountName", "ChargeClass", "ChargeDescription", "ConsumedQuantity", "ConsumedUnit", "InvoiceId"),
        *("PricingQuantity", "PricingUnit", "ResourceId", "ResourceName", "ResourceType", "SubAccountId"),
        *("SubAccountName", "Tags", "ListUnitPrice", "ContractedUnitPrice"),
    }
)
OTHERS = frozenset({"ChargeFrequency", "ServiceSubcategory"})
COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
NUMBERS = frozenset({*COSTS, "ConsumedQuantity", "PricingQuantity", "ListUnitPrice", "ContractedUnitPrice"})
TIMES = frozenset({"BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"})
ALLOWED: Mapping[str, frozenset[str]] = {
    "ChargeCategory": frozenset({"Usage", "Purchase", "Tax", "Credit", "Adjustment"}),
    "ChargeClass": frozenset({"Correction"}),
    "ChargeFrequency": frozenset({"One-Time", "Recurring", "Usage-Based"}),
    "ServiceCategory": frozenset(SERVICES),
}


def problems(found: Iterable[Row]) -> Iterator[str]:
    """What of these rows FOCUS does not allow, in words with the row's number from 1."""
    accounts: dict[str, set[str | None]] = {}
    order: list[str] | None = None
    for number, row in enumerate(found, 1):
        order = order or list(row)
        if list(row) != order:
            yield f"row {number}: other columns than in the first row"
        for problem in [*_columns(row), *_values(row), *_relations(row)]:
            yield f"row {number}: {problem}"
        accounts.setdefault(row.get("BillingAccountId") or "", set()).add(row.get("BillingCurrency"))
    for account, currencies in accounts.items():
        if len(currencies) > 1:
            yield f"account {account}: BillingCurrency must be one for all of an account's rows"
    own = [name.startswith("x_") for name in order or []]
    if own != sorted(own):
        yield "columns of one's own must come after those of FOCUS"


def _columns(row: Row) -> Iterator[str]:
    for name in MANDATORY - set(row):
        yield f"{name} is missing"
    for name in set(row) - MANDATORY - NULLABLE - OTHERS:
        if not re.fullmatch(r"x_[A-Z][A-Za-z0-9]{0,47}", name):
            yield f"{name} is no column of FOCUS; a column of one's own begins with x_, in Pascal case"


def _values(row: Row) -> Iterator[str]:
    for name, value in row.items():
        if name.startswith("x_"):
            continue
        if value is None:
            if name not in NULLABLE:
                yield f"{name} must not be null"
        elif not _fits(name, value):
            yield f"{name} cannot be {value!r}"


def _fits(name: str, value: str) -> bool:
    if name in NUMBERS:
        return NUMBER.fullmatch(value) is not None
    if name in TIMES:
        return TIME.fullmatch(value) is not None
    if name in ALLOWED:
        return value in ALLOWED[name]
    if name == "BillingCurrency":
        return re.fullmatch(r"[A-Z]{3}", value) is not None
    if name == "Tags":
        return _flat(value)
    return bool(value.strip())


def _flat(value: str) -> bool:
    """A JSON object, each key once, without objects or lists in it."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError(pairs)
        return dict(pairs)

    try:
        found = json.loads(value, object_pairs_hook=unique)
    except ValueError:
        return False
    return isinstance(found, dict) and not any(isinstance(each, dict | list) for each in found.values())


def _relations(row: Row) -> Iterator[str]:
    for words, broken in RELATIONS.items():
        if broken(row):
            yield words


def _null(row: Row, name: str) -> bool:
    return row.get(name) is None


def _number(row: Row, name: str) -> Decimal | None:
    value = row.get(name)
    return Decimal(value) if value is not None and NUMBER.fullmatch(value) else None


def _is(row: Row, name: str, *values: str) -> bool:
    return row.get(name) in values


def _product_differs(row: Row, cost: str, price: str) -> bool:
    unit, quantity, whole = _number(row, price), _number(row, "PricingQuantity"), _number(row, cost)
    if unit is None or quantity is None or whole is None or _is(row, "ChargeClass", "Correction"):
        return False
    with localcontext(prec=60):
        return unit * quantity != whole


def _beyond(row: Row) -> bool:
    """Times as text sort as they follow each other."""
    start, end = row.get("BillingPeriodStart") or "", row.get("BillingPeriodEnd") or ""
    return not start <= (row.get("ChargePeriodStart") or "") < (row.get("ChargePeriodEnd") or "") <= end


_USED = ("Usage", "Purchase")
RELATIONS: Mapping[str, Callable[[Row], bool]] = {
    "the charge period is not within the billing period": _beyond,
    "BilledCost must be 0 where a third party is paid": lambda row: (
        not _is(row, "ProviderName", row.get("InvoiceIssuerName") or "") and bool(_number(row, "BilledCost"))
    ),
    "all costs of a charge that rests on no other must be its BilledCost": lambda row: (
        _is(row, "ChargeCategory", "Credit") and len({_number(row, name) for name in COSTS}) > 1
    ),
    "EffectiveCost must add up to BilledCost where there are no commitments": lambda row: (
        _is(row, "ChargeCategory", "Usage") and _number(row, "EffectiveCost") != _number(row, "BilledCost")
    ),
    "ListUnitPrice times PricingQuantity must be ListCost": lambda row: _product_differs(
        row, "ListCost", "ListUnitPrice"
    ),
    "ContractedUnitPrice times PricingQuantity must be ContractedCost": lambda row: _product_differs(
        row, "ContractedCost", "ContractedUnitPrice"
    ),
    "PricingQuantity must be null of a tax": lambda row: (
        _is(row, "ChargeCategory", "Tax") and not _null(row, "PricingQuantity")
    ),
    "PricingQuantity must not be null of what is used or purchased": lambda row: (
        _is(row, "ChargeCategory", *_USED)
        and not _is(row, "ChargeClass", "Correction")
        and _null(row, "PricingQuantity")
    ),
    "PricingUnit must be null if and only if PricingQuantity is": lambda row: (
        _null(row, "PricingUnit") != _null(row, "PricingQuantity")
    ),
    "ConsumedQuantity must be null of what is not used, and of nothing else but a correction": lambda row: (
        _null(row, "ConsumedQuantity") is _is(row, "ChargeCategory", "Usage")
        and not _is(row, "ChargeClass", "Correction")
    ),
    "ConsumedUnit must be null if and only if ConsumedQuantity is": lambda row: (
        _null(row, "ConsumedUnit") != _null(row, "ConsumedQuantity")
    ),
    "ChargeFrequency of a purchase must not be Usage-Based": lambda row: (
        _is(row, "ChargeCategory", "Purchase") and _is(row, "ChargeFrequency", "Usage-Based")
    ),
    "ResourceType must be null if and only if ResourceId is": lambda row: (
        _null(row, "ResourceType") != _null(row, "ResourceId")
    ),
    "ResourceName must not repeat ResourceId, nor stand without it": lambda row: (
        not _null(row, "ResourceName")
        and (_null(row, "ResourceId") or _is(row, "ResourceName", row["ResourceId"] or ""))
    ),
    "SubAccountName must be null if and only if SubAccountId is": lambda row: (
        _null(row, "SubAccountName") != _null(row, "SubAccountId")
    ),
    "ServiceSubcategory must be one of its ServiceCategory": lambda row: (
        "ServiceSubcategory" in row
        and (known := SERVICES.get(row.get("ServiceCategory") or "")) is not None
        and row["ServiceSubcategory"] not in known
    ),
}
"""What columns want of each other: the rule in words, and whether a row breaks it."""

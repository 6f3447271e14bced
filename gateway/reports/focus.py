"""Charges as a FOCUS 1.2 data set of cost and usage (focus.finops.org).

One row per tenant, key, deployment, tag and day.  Who runs the gateway sells and invoices, a month per tenant; who made
the answers is their publisher.  Calls without a known price have no cost in FOCUS: they are counted in
`x_UnknownCostRequests`.  Nothing is known of commitments, and a row's tokens are of several kinds and prices: all four
costs are what was charged, and there are no unit prices and no SKUs.  Tokens are decimals for readers that guess types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TypeAlias

import orjson

from gateway.money import dollars
from gateway.reports.charges import Charge

BY = ("tenant", "key", "provider", "deployment", "upstream_model", "day", "tag:team", "tag:feature", "tag:cost_center")
"""What the rows are grouped by."""
ISSUER = "Tollgate"
CATEGORY, SUBCATEGORY = "AI and Machine Learning", "Generative AI"
TIME = "%Y-%m-%dT%H:%M:%SZ"
COLUMNS = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency"),
    *("ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost"),
    *("InvoiceId", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName"),
    *("PublisherName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName"),
    *("ServiceSubcategory", "SubAccountId", "SubAccountName", "Tags", "x_Requests", "x_UnknownCostRequests"),
)

Row: TypeAlias = dict[str, str | None]


def rows(charged: Iterable[Charge]) -> Iterator[Row]:
    """Charges grouped by `BY` -> rows."""
    for each in charged:
        values = dict(zip(BY, each.sums.group, strict=True))
        day = datetime.fromisoformat(f"{values['day']}T00:00:00+00:00")
        month = day.replace(day=1)
        cost, tokens = dollars(each.total), f"{each.sums.input_tokens + each.sums.output_tokens}.0"
        deployment, model = values["deployment"] or None, values["upstream_model"] or None
        tags = {name.removeprefix("tag:"): value for name, value in values.items() if name.startswith("tag:") and value}
        yield {
            "BilledCost": cost,
            "BillingAccountId": values["tenant"],
            "BillingAccountName": values["tenant"],
            "BillingCurrency": "USD",
            "BillingPeriodEnd": (month + timedelta(32)).replace(day=1).strftime(TIME),
            "BillingPeriodStart": month.strftime(TIME),
            "ChargeCategory": "Usage",
            "ChargeClass": None,
            "ChargeDescription": f"{model or 'Requests'} through {deployment or ISSUER}",
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodEnd": (day + timedelta(1)).strftime(TIME),
            "ChargePeriodStart": day.strftime(TIME),
            "ConsumedQuantity": tokens,
            "ConsumedUnit": "Tokens",
            "ContractedCost": cost,
            "EffectiveCost": cost,
            "InvoiceId": f"{month:%Y-%m} {values['tenant']}",
            "InvoiceIssuerName": ISSUER,
            "ListCost": cost,
            "PricingQuantity": tokens,
            "PricingUnit": "Tokens",
            "ProviderName": ISSUER,
            "PublisherName": values["provider"] or ISSUER,
            "ResourceId": deployment,
            "ResourceName": None,  # a deployment has no other name than its id
            "ResourceType": "Model deployment" if deployment else None,
            "ServiceCategory": CATEGORY,
            "ServiceName": model or ISSUER,
            "ServiceSubcategory": SUBCATEGORY,
            "SubAccountId": values["key"] or None,
            "SubAccountName": values["key"] or None,
            "Tags": orjson.dumps(tags, option=orjson.OPT_SORT_KEYS).decode(),
            "x_Requests": str(each.sums.requests),
            "x_UnknownCostRequests": str(each.sums.unknown),
        }

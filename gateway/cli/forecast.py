"""`tollgate forecast`: what the month will come to, from the gateway's own records."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from gateway.cli.show import CONFIG, ConfigOption, JsonOption, TenantOption, as_json, as_table, with_store

if TYPE_CHECKING:
    from gateway.sql.spend import Sum
    from gateway.sql.tenants import Store

COLUMNS = ("tenant", "spent $", "expected $", "low $", "high $", "days")


def forecast(
    tenant: TenantOption = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Show month-end spend (UTC) of each tenant: expected, and the range that holds 80 % of what may come."""
    from gateway.economics import DAYS_MAX, forecast as foreseen
    from gateway.money import dollars
    from gateway.sql.records import Filter
    from gateway.sql.spend import spend

    now = datetime.fromtimestamp(time.time(), UTC)
    today, midnight = now.date(), now.replace(hour=0, minute=0, second=0, microsecond=0)
    since = min(midnight.replace(day=1), midnight - timedelta(DAYS_MAX))
    wanted = Filter(since=since.timestamp(), equal={} if tenant is None else {"tenant": tenant})

    async def work(store: Store) -> list[Sum]:
        return await store.database.run(lambda connection: spend(connection, wanted, ("tenant", "day"), None))

    days: dict[str, dict[date, int]] = {}
    for each in with_store(config, work, json=json):
        who, day = each.group
        days.setdefault(who or "", {})[date.fromisoformat(day or "")] = each.cost
    share = (now - midnight) / timedelta(1)
    found = {who: foreseen(costs, today, share) for who, costs in sorted(days.items())}
    told = [
        {
            "tenant": who,
            "spent_usd": dollars(each.spent),
            "expected_usd": dollars(each.expected),
            "low_usd": None if each.low is None else dollars(each.low),
            "high_usd": None if each.high is None else dollars(each.high),
            "days": each.days,
        }
        for who, each in found.items()
    ]
    if json:
        as_json(told)
        return
    rows = [["-" if value is None else str(value) for value in line.values()] for line in told]
    as_table(f"Spend by the end of {today:%B %Y}", COLUMNS, rows, right=COLUMNS[1:])

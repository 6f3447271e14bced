"""`tollgate savings`: what was paid, what it would have cost, and what made the difference."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import (
    CONFIG,
    ConfigOption,
    JsonOption,
    SinceOption,
    TenantOption,
    UntilOption,
    as_json,
    as_table,
    fail,
    with_store,
)
from gateway.cli.spend import moment_of

if TYPE_CHECKING:
    from gateway.reports.saved import Saved
    from gateway.sql.tenants import Store

SAVINGS_S = 120.0


def savings(
    by: Annotated[str, typer.Option(help="Groups, with commas: tenant, route, model, day, tag:NAME ...")] = "tenant",
    since: SinceOption = "30d",
    until: UntilOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Show what was saved and by what, net of judges, discarded answers, shadows and cache writes."""
    from gateway.reports.saved import saved
    from gateway.savings import MODELLED
    from gateway.sql.records import Filter
    from gateway.sql.spend import spend

    groups, now = tuple(name.strip() for name in by.split(",") if name.strip()), time.time()
    try:
        start, end = moment_of(since, now), None if until is None else moment_of(until, now)
    except ValueError as error:
        fail(str(error), json=json)
    wanted = Filter(since=start, until=end, equal={} if tenant is None else {"tenant": tenant})

    async def work(store: Store) -> list[Saved]:
        sums = await store.database.run(lambda connection: spend(connection, wanted, groups), timeout_s=SAVINGS_S)
        return [saved(each) for each in sums]

    found = with_store(config, work, json=json)
    if json:
        as_json([{**dict(zip(groups, each.group, strict=True)), **_described(each)} for each in found])
        return
    causes = list({**found[0].measured, **found[0].modelled}) if found else []
    names = [f"{cause}*" if cause in MODELLED else cause for cause in causes]
    columns = (*groups, "would have cost $", *names, "saved $", "paid $")
    as_table(f"Savings since {since}", columns, [_row(each, causes) for each in found], right=columns[len(groups) :])
    if found:
        typer.echo("* modelled: rests on what another model, or the same without a cap, might have said.")


def _row(each: Saved, causes: list[str]) -> tuple[str, ...]:
    from gateway.money import dollars

    amounts = {**each.measured, **each.modelled}
    figures = (each.otherwise, *(amounts[cause] for cause in causes), each.net, each.paid)
    return (*("-" if name is None else name for name in each.group), *map(dollars, figures))


def _described(each: Saved) -> dict[str, Any]:
    from gateway.money import dollars

    return {
        "paid_usd": dollars(each.paid),
        "otherwise_usd": dollars(each.otherwise),
        "net_usd": dollars(each.net),
        "measured_usd": {name: dollars(amount) for name, amount in each.measured.items()},
        "modelled_usd": {name: dollars(amount) for name, amount in each.modelled.items()},
    }

"""`tollgate spend`: what was spent, from the records in SQL."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
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

if TYPE_CHECKING:
    from gateway.sql.spend import Sum
    from gateway.sql.tenants import Store

AGO_S = {"h": 3600, "d": 86_400, "w": 604_800}
MONEY = ("cost", "presumed", "baseline", "compared", "overhead")
FIGURES = ("requests", "cost $", "saved $", "unknown", "input", "cached", "output", "errors")


def spend(
    by: Annotated[
        str, typer.Option(help="Groups, with commas: tenant, key, user, model, route, deployment, day, tag:NAME ...")
    ] = "tenant,model,day",
    since: SinceOption = "30d",
    until: UntilOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Show what was spent.  Requests of the last second may still be on their way to the database."""
    from gateway.sql.records import Filter
    from gateway.sql.spend import spend as summed

    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    now = time.time()
    try:
        wanted = Filter(
            since=moment_of(since, now),
            until=None if until is None else moment_of(until, now),
            equal={} if tenant is None else {"tenant": tenant},
        )
    except ValueError as error:
        fail(str(error), json=json)

    async def work(store: Store) -> list[Sum]:
        return await store.database.run(lambda connection: summed(connection, wanted, groups))

    sums = with_store(config, work, json=json)
    if json:
        as_json([_described(found, groups) for found in sums])
        return
    rows = [_row(found) for found in sums]
    as_table(f"Spend since {since}", (*groups, *FIGURES), rows, right=FIGURES)


def moment_of(text: str, now: float) -> float:
    """Unix seconds of '24h', '7d', '2w' before `now`, or of a date or time (UTC).  ValueError says what may stand."""
    if ago := re.fullmatch(r"([1-9]\d{0,5})([hdw])", text):
        return now - int(ago[1]) * AGO_S[ago[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 24h, 7d, 2w or a date such as 2026-11-01") from None
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


def _row(found: Sum) -> tuple[str, ...]:
    from gateway.money import dollars

    return (
        *("-" if name is None else name for name in found.group),
        f"{found.requests:,}",
        dollars(found.cost),
        dollars(found.baseline - found.compared),
        f"{found.unknown:,}",
        f"{found.input_tokens:,}",
        f"{found.cached_tokens:,}",
        f"{found.output_tokens:,}",
        f"{found.errors:,}",
    )


def _described(found: Sum, groups: tuple[str, ...]) -> dict[str, Any]:
    from gateway.money import dollars

    values = {name: value for name, value in asdict(found).items() if not name.startswith(("saved_", "shadow"))}
    figures = {f"{name}_usd" if name in MONEY else name: value for name, value in values.items()}
    figures |= {f"{name}_usd": dollars(getattr(found, name)) for name in MONEY}
    del figures["group"]
    return {**dict(zip(groups, found.group, strict=True)), **figures}

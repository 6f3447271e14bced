"""`tollgate doctor`: what keeps prompt caches from being read, and what that costs a month."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

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
    from gateway.doctor.report import Checkup
    from gateway.sql.tenants import Store

COLUMNS = ("tenant", "route", "input", "read from cache", "what breaks it", "where", "requests", "$ a month")
DOCTOR_S = 120.0


def doctor(
    since: SinceOption = "7d",
    until: UntilOption = None,
    tenant: TenantOption = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Show how well prompt caches are read, what breaks them and where, and what that costs a month."""
    from gateway.doctor.diagnosis import ADVICE, Cause
    from gateway.doctor.report import checkups, described

    now = time.time()
    try:
        start, end = moment_of(since, now), now if until is None else moment_of(until, now)
    except ValueError as error:
        fail(str(error), json=json)

    async def work(store: Store) -> list[Checkup]:
        return await store.database.run(lambda connection: checkups(connection, start, end, tenant), timeout_s=DOCTOR_S)

    found = with_store(config, work, json=json)
    if json:
        as_json([described(each) for each in found])
        return
    rows = [row for each in found for row in _rows(each)]
    as_table(f"Prompt caches since {since}", COLUMNS, rows, right=("input", "read from cache", "requests", "$ a month"))
    for cause in dict.fromkeys(found_.cause for each in found for found_ in each.breaks):
        typer.echo(f"{cause}: {ADVICE[Cause(cause)]}")


def _rows(each: Checkup) -> list[tuple[str, ...]]:
    from gateway.money import dollars

    rate = "-" if each.hit_rate is None else f"{each.hit_rate:.1%}"
    first = (each.tenant, each.route or "-", f"{each.input_tokens:,}", rate)
    rows = [
        (
            found.cause,
            f"{found.role or 'prompt'} (block {found.block}), token {found.token:,}, on {found.deployment}",
            f"~{found.requests:,}",
            dollars(each.a_month(found)),
        )
        for found in each.breaks
    ]
    return [(*(first if not index else ("", "", "", "")), *row) for index, row in enumerate(rows or [("-",) * 4])]

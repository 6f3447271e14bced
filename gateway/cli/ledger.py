"""`tollgate ledger`: what the ledger says, held against the records, and an operator's word on presumed spend."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable, Coroutine
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.show import CONFIG, ConfigOption, JsonOption, as_json, as_table, fail, settings_of

if TYPE_CHECKING:
    from gateway.ledger.base import Ledger
    from gateway.settings import Settings
    from gateway.sql.tenants import Store
    from gateway.verify import Difference

T = TypeVar("T")

ledger = typer.Typer(no_args_is_help=True, help="Compare ledger, records and metrics; resolve presumed spend.")
FIGURES = ("ledger", "reserved", "records", "on the way")


@ledger.command()
def verify(
    metrics: Annotated[
        list[str] | None, typer.Option(help="A gateway's /metrics to compare, too; one for each gateway.")
    ] = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Compare what ledger, records and metrics say was spent; status 1 if a difference is not explained."""

    async def work(settings: Settings, store: Store, book: Ledger) -> tuple[list[Difference], list[str], int]:
        from gateway.cli.ledger_figures import figures

        return await figures(settings, store, book, metrics or [])

    found, told, checked = _with_ledger(config, work, json=json)
    wrong = [each for each in found if not each.fine]
    if json:
        as_json({"checked": checked, "differences": [_described(each) for each in found], "metrics": told})
    else:
        if found:
            columns = ("account", "window", *FIGURES, "why")
            as_table("Differences", columns, [_row(each) for each in found], right=FIGURES)
        typer.echo(f"{checked} accounts compared, {len(found)} differ, {len(wrong)} of them unexplained.")
        for line in told:
            typer.echo(line)
    if wrong:
        raise typer.Exit(1)


@ledger.command()
def resolve(
    record: Annotated[str, typer.Argument(help="The id of a record whose outcome is `presumed`.")],
    cost: Annotated[str | None, typer.Option(help="What it cost, in dollars.")] = None,
    free: Annotated[bool, typer.Option("--free", help="It cost nothing.")] = False,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Say what a request cost that nobody settled."""
    from gateway.money import dollars, nano
    from gateway.resolve import Resolved, resolve as resolved

    if (cost is None) == (not free):
        fail("Give one of --cost and --free.", json=json)
    try:
        amount = Decimal(cost or 0)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= 9_000_000:  # what the ledger counts exactly
        fail(f"--cost must be dollars, such as 0.05, not {cost!r}.", json=json)

    async def work(_: Settings, store: Store, book: Ledger) -> Resolved:
        return await resolved(store, book, record, nano(amount), f"cli:{getpass.getuser()}")

    done = _with_ledger(config, work, json=json)
    if json:
        presumed = None if done.presumed is None else dollars(done.presumed)
        as_json({"id": done.id, "tenant": done.tenant, "presumed_usd": presumed, "cost_usd": dollars(done.cost)})
        return
    typer.echo(f"Record {done.id} of tenant {done.tenant} cost ${dollars(done.cost)}.")
    if done.found == "unknown":
        typer.echo("The ledger no longer knew it: the record is right, counters of old windows stay as they are.")


def _with_ledger(config: Path, work: Callable[[Settings, Store, Ledger], Coroutine[Any, Any, T]], *, json: bool) -> T:
    from gateway.errors import GatewayError
    from gateway.ledger.open import open_ledger
    from gateway.sql.database import DatabaseUnavailable
    from gateway.sql.tenants import Store

    settings = settings_of(config, json=json)

    async def run() -> T:
        store = Store(settings.database)
        book = open_ledger(settings.redis, settings.database, timeout_s=5.0, connect_timeout_s=5.0)
        try:
            await store.open()
            await book.ping()
            return await work(settings, store, book)
        finally:
            await book.close()
            store.close()

    try:
        return asyncio.run(run())
    except (DatabaseUnavailable, GatewayError, ValueError, OSError) as error:
        fail(str(error), json=json)


def _row(each: Difference) -> tuple[str, ...]:
    amounts = (each.ledger, each.reserved, each.records, each.waiting)
    return (str(each.account), str(each.limit.window), *(_shown(each, amount) for amount in amounts), each.why)


def _shown(each: Difference, amount: int) -> str:
    from gateway.money import dollars
    from gateway.types import Unit

    return f"${dollars(amount)}" if each.limit.unit is Unit.COST else f"{amount:,} {each.limit.unit}"


def _described(each: Difference) -> dict[str, Any]:
    return {
        "account": str(each.account),
        "tenant": each.account.tenant or None,
        "unit": str(each.limit.unit),
        "window": str(each.limit.window),
        "ledger": each.ledger,
        "reserved": each.reserved,
        "records": each.records,
        "on_the_way": each.waiting,
        "why": each.why,
        "explained": each.fine,
    }

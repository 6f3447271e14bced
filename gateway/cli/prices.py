"""`tollgate prices`: what is paid where, what a newer list would change, and what a corrected one makes of the past."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import CONFIG, ConfigOption, JsonOption, as_json, as_table, fail, settings_of, with_store
from gateway.cli.spend import moment_of

if TYPE_CHECKING:
    from gateway.configuration.price_list import Books, Changes
    from gateway.sql.rerating import Rerated
    from gateway.sql.tenants import Store
    from gateway.types import Price

prices = typer.Typer(no_args_is_help=True, help="Show, compare and renew price lists; price the past anew.")

ListArgument = Annotated[str, typer.Argument(help="A data.json of genai-prices, version 2; - reads it from stdin.")]
RATES = ("input", "cache_read", "output", "reasoning")


@prices.command()
def show(
    deployment: Annotated[str | None, typer.Argument(help="Only this one, with everything it may cost.")] = None,
    at: Annotated[str | None, typer.Option(help="As they were then: 7d ago, or a date such as 2026-11-01.")] = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Show the prices of deployments in dollars: per million tokens, and by the piece."""
    from gateway.settings import load

    settings = settings_of(config, json=json)
    if at is not None:
        settings = load(config, now=_moment(at, json=json))
    if deployment is not None and deployment not in settings.deployments:
        fail(f"There is no deployment {deployment!r}.", json=json)
    chosen = [each for each in settings.deployments.values() if deployment in (None, each.id)]
    if json or deployment is not None:
        as_json([{"deployment": each.id, "model": each.upstream_model, **_told(each.price)} for each in chosen])
        return
    rows = [(each.id, each.upstream_model, *_rates(each.price), each.price.source) for each in chosen]
    as_table("Dollars per million tokens", ("deployment", "model", *RATES, "source"), rows, right=RATES)


@prices.command()
def diff(newer: ListArgument, config: ConfigOption = CONFIG, json: JsonOption = False) -> None:
    """Show what a newer list would change.  Status 1 if `refresh` would refuse it."""
    found = _compared(_list(newer, json=json)[1], config, json=json)
    _tell(found, json=json)
    if found.objections():
        raise typer.Exit(1)


@prices.command()
def refresh(
    newer: ListArgument,
    force: Annotated[bool, typer.Option("--force", help="Take it whatever it changes.")] = False,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Put a newer list beside the settings; gateways take it when they load them next.

    One that would lose models or change many prices is refused.
    """
    from gateway.configuration.price_list import FILE

    text, books = _list(newer, json=json)
    found = _compared(books, config, json=json)
    if (problems := found.objections()) and not force:
        fail("The list is refused; --force takes it all the same.", json=json, problems=problems)
    place = config.parent / FILE
    fresh = place.with_suffix(".new")
    fresh.write_bytes(text)
    fresh.replace(place)
    _tell(found, json=json)


@prices.command()
def rerate(
    since: Annotated[str, typer.Option("--from", help="From here on: 24h, 7d, or a date such as 2026-11-01 (UTC).")],
    until: Annotated[str, typer.Option("--to", help="Up to here, not included: the same.")],
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Price records anew with the prices, as they are known now, of the time of each call.

    What was charged stays as it is: the new figure stands beside it in `rerated_cost`; the audit log keeps that it did.
    """
    from gateway.money import dollars
    from gateway.settings import load
    from gateway.sql.rerating import rerate as rerated

    began, ended = _moment(since, json=json), _moment(until, json=json)

    async def work(store: Store) -> Rerated:
        return await rerated(store, lambda at: load(config, now=at), began, ended, time.time())

    found = with_store(config, work, json=json)
    if json:
        as_json({**_figures(found), "before_usd": dollars(found.before), "after_usd": dollars(found.after)})
        return
    typer.echo(f"{found.records} records, {found.changed} with another cost, {found.unpriced} that cannot be priced.")
    typer.echo(f"{dollars(found.before)} dollars before, {dollars(found.after)} now.")


def _figures(found: Rerated) -> dict[str, int]:
    return {"records": found.records, "changed": found.changed, "unpriced": found.unpriced}


def _moment(text: str, *, json: bool) -> float:
    try:
        return moment_of(text, time.time())
    except ValueError as error:
        fail(str(error), json=json)


def _list(name: str, *, json: bool) -> tuple[bytes, Books]:
    from gateway.configuration.price_list import read

    try:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return text, read(text)
    except (OSError, ValueError) as error:
        fail(f"{name} is no price list: {str(error)[:300]}", json=json)


def _compared(newer: Books, config: Path, *, json: bool) -> Changes:
    from gateway.configuration.price_list import FILE, books, changes
    from gateway.configuration.rates import every

    now = time.time()
    try:
        known = every(books(config.parent / FILE), now)
    except ValueError as error:
        fail(f"{config.parent / FILE} is no price list: {str(error)[:300]}", json=json)
    try:
        return changes(known, every(newer, now))
    except ValueError as error:
        fail(f"The list is refused, --force or not: {str(error)[:300]}", json=json)


def _tell(found: Changes, *, json: bool) -> None:
    told: dict[str, Any] = {"lost": found.lost, "new": found.new, "changed": found.changed}
    if json:
        as_json({**told, "same": found.same, "objections": found.objections()})
        return
    for what, names in told.items():
        typer.echo(f"{len(names)} {what}" + "".join(f"\n  {name}" for name in names))
    typer.echo(f"{found.same} the same")
    for problem in found.objections():
        typer.secho(problem, err=True, fg="red")


def _rates(price: Price) -> list[str]:
    from gateway.money import dollars

    rates = {str(bucket): dollars(rate) for bucket, rate in price.rates.items()}
    return [rates.get(name, "-") if price.known else "unknown" for name in RATES]


def _told(price: Price) -> dict[str, Any]:
    """Everything that a price says, in dollars."""
    from gateway.money import dollars

    def usd(amounts: Any) -> dict[str, str]:  # noqa: ANN401 - by bucket or by fee
        return {str(name): dollars(amount) for name, amount in amounts.items()}

    return {
        "known": price.known,
        "source": price.source,
        "rates": usd(price.rates),
        "fees": usd(price.fees),
        "tiers": [{"above": tier.above, "marginal": tier.marginal, "rates": usd(tier.rates)} for tier in price.tiers],
        "windows": [
            {
                "start_minute": window.start_minute,
                "end_minute": window.end_minute,
                "weekdays": sorted(window.weekdays),
                "rates": usd(window.rates),
            }
            for window in price.windows
        ],
        "variants": {name: _told(variant) for name, variant in price.variants.items()},
    }

"""`tollgate breakeven`: hosted or self-hosted, and from which volume on."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from gateway.cli.show import JsonOption, as_json, as_table, fail


def breakeven(
    per_hour: Annotated[str, typer.Option(help="Dollars an hour of the machine, or of the provisioned throughput.")],
    tokens_per_second: Annotated[str, typer.Option(help="Tokens a second it serves at full load.")],
    hosted: Annotated[str, typer.Option(help="Dollars per million tokens of the hosted offer, blended as you use it.")],
    utilization: Annotated[str, typer.Option(help="Share of its time that it is busy, above 0 to 1.")] = "1",
    hours: Annotated[str, typer.Option(help="Hours a month that it is paid for.")] = "720",
    monthly: Annotated[str, typer.Option(help="What it costs beside, a month: people, power, storage.")] = "0",
    json: JsonOption = False,
) -> None:
    """Show what a million tokens cost on a machine of your own, and the volume from which it is cheaper."""
    from gateway.economics import compare

    try:
        given = [Decimal(text) for text in (per_hour, tokens_per_second, hosted, utilization, hours, monthly)]
        found = compare(*given[:3], utilization=given[3], hours=given[4], monthly_extra=given[5])
    except InvalidOperation:
        fail("Every figure must be a number, such as 2.49.", json=json)
    except ValueError as error:
        fail(f"{error}.", json=json)
    figures = {
        "monthly_usd": _figure(found.monthly),
        "usd_per_million_tokens": _figure(found.per_million),
        "hosted_usd_per_million_tokens": _figure(Decimal(hosted)),
        "capacity_tokens_a_month": _figure(found.capacity, 0),
        "break_even_tokens_a_month": _figure(found.flips_at, 0),
        "utilization_needed": _figure(found.utilization_needed),
    }
    if json:
        as_json({**figures, "pays": found.pays})
        return
    as_table("Break-even", ("figure", "value"), [(n.replace("_", " "), v) for n, v in figures.items()], right=["value"])
    typer.echo(
        f"Cheaper from {figures['break_even_tokens_a_month']} tokens a month on."
        if found.pays
        else "It never pays: the volume from which it would is more than it can serve."
    )


def _figure(value: Decimal, digits: int = 6) -> str:
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

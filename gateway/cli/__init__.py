"""`tollgate` and its commands.  Each imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway import __version__
from gateway.cli.breakeven import breakeven
from gateway.cli.check import check
from gateway.cli.doctor import doctor
from gateway.cli.explain import explain
from gateway.cli.forecast import forecast
from gateway.cli.imports import import_
from gateway.cli.keys import keys
from gateway.cli.ledger import ledger
from gateway.cli.prices import prices
from gateway.cli.replay import replay
from gateway.cli.report import report
from gateway.cli.routing import evaluate, train
from gateway.cli.savings import savings
from gateway.cli.serve import serve
from gateway.cli.spend import spend

app = typer.Typer(
    name="tollgate",
    help="An OpenAI-compatible gateway that routes each request to the cheapest model good enough, under hard caps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tollgate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options before any command."""


app.command()(serve)
app.command()(check)
app.command()(explain)
app.command(name="import")(import_)
app.add_typer(keys, name="keys")
app.add_typer(ledger, name="ledger")
app.add_typer(prices, name="prices")
app.command()(spend)
app.command()(report)
app.command()(doctor)
app.command()(savings)
app.command()(forecast)
app.command()(breakeven)
app.command()(evaluate)
app.command()(train)
app.command()(replay)


def main() -> None:
    """The entry point."""
    app()

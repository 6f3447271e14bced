"""What every command shares: its options, its two ways of telling a result, and how it fails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from gateway.settings import Settings
    from gateway.sql.tenants import Store

T = TypeVar("T")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="TOLLGATE_CONFIG", help="The gateway's settings.", show_default=True)
]
SinceOption = Annotated[
    str, typer.Option("--since", help="From here on: 24h, 7d, 2w, or a date such as 2026-11-01 (UTC).")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Up to here, not included: the same, or now.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
CONFIG = Path("config/gateway.yaml")
PIPED_WIDTH = 250


def as_json(value: object) -> None:
    """One JSON document on stdout."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def as_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table on stdout; columns named in `right` are figures.  Piped, it is as wide as its content."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    lines = list(rows)
    if not lines:
        typer.echo(f"{title}: none.")
        return
    wide = None if sys.stdout.isatty() else PIPED_WIDTH
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    Console(width=wide).print(table)


def fail(message: str, *, json: bool = False, problems: Sequence[str] = ()) -> NoReturn:
    """Ends the command with status 1, saying why on stderr (with `json`: on stdout too, as JSON)."""
    if json:
        as_json({"error": message, "problems": list(problems)})
    for line in [message, *problems]:
        typer.secho(line, err=True, fg="red")
    raise typer.Exit(1)


def settings_of(config: Path, *, json: bool = False) -> Settings:
    """The settings in a file, or the end of the command with everything that is wrong with them."""
    from gateway.settings import SettingsError, load

    try:
        return load(config)
    except SettingsError as error:
        fail(
            f"{config} has {len(error.problems)} problem{'s' if len(error.problems) != 1 else ''}:",
            json=json,
            problems=[str(problem) for problem in error.problems],
        )


def with_store(config: Path, work: Callable[[Store], Coroutine[Any, Any, T]], *, json: bool = False) -> T:
    """What `work` finds in the database of the settings, brought to the newest schema first."""
    from gateway.errors import GatewayError
    from gateway.sql.database import DatabaseUnavailable
    from gateway.sql.tenants import Store

    async def run() -> T:
        store = Store(settings.database)
        try:
            await store.open()
            return await work(store)
        finally:
            store.close()

    settings = settings_of(config, json=json)
    try:
        return asyncio.run(run())
    except (DatabaseUnavailable, GatewayError, ValueError) as error:
        fail(str(error), json=json)


def moment(unix: float | None) -> str:
    """A time for people: UTC, to the minute; empty for none."""
    from datetime import UTC, datetime

    return "" if unix is None else datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%MZ")

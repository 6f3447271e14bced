"""`tollgate report`: showback, chargeback, FOCUS and the closing of a month."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.show import CONFIG, ConfigOption, TenantOption, as_table, fail, with_store
from gateway.cli.spend import moment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection

    from gateway.reports.charges import Charge, Terms
    from gateway.sql.records import Filter
    from gateway.sql.tenants import Store

T = TypeVar("T")
REPORT_S = 120.0
FORMATS = ("table", "csv", "json", "parquet", "focus")


def report(
    by: Annotated[
        str, typer.Option(help="Groups, with commas: tenant, key, user, model, provider, tag:NAME, day ...")
    ] = ("tenant,upstream_model"),
    month: Annotated[str | None, typer.Option(help="A month (UTC) such as 2026-11.")] = None,
    since: Annotated[str, typer.Option(help="Without a month: from here on; 24h, 7d, or a date.")] = "30d",
    until: Annotated[str | None, typer.Option(help="Up to here, not included.")] = None,
    tenant: TenantOption = None,
    format_: Annotated[str, typer.Option("--format", help=", ".join(FORMATS))] = "table",
    out: Annotated[Path | None, typer.Option(help="File to write; none: stdout.")] = None,
    markup: Annotated[
        list[str] | None, typer.Option(help="Percent added to the cost; 15, or TENANT=15 for one. Repeatable.")
    ] = None,
    shared: Annotated[str, typer.Option(help="Dollars that all tenants carry together.")] = "0",
    peak_weight: Annotated[str, typer.Option(help="Of the shared cost: the part (0 to 1) split by peak hours.")] = "0",
    currency: Annotated[str, typer.Option(help="Code, and rate to a dollar, such as EUR=0.92.")] = "USD=1",
    close: Annotated[Path | None, typer.Option(help="Write the month, closed, to this file.")] = None,
    verify: Annotated[Path | None, typer.Option(help="Compare a closed month with the records.")] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Report what was spent and who is charged for it; any grouping adds up to the same total, to the nano-dollar."""
    from gateway.reports.statement import Currency, charged

    if verify is not None:
        return _verify(verify, config)
    try:
        terms = _terms(markup or [], shared, peak_weight)
        wanted = _filter(month, since, until, tenant)
        code, _, rate = currency.partition("=")
        money = Currency(code.upper(), _decimal(rate or "1", "currency"))
    except ValueError as error:
        fail(f"{error}.")
    if close is not None:
        return _close(close, month, terms, config)
    if format_ not in FORMATS:
        fail(f"--format must be one of {', '.join(FORMATS)}.")
    groups = _focus_by() if format_ == "focus" else tuple(name.strip() for name in by.split(",") if name.strip())
    found = _asked(config, lambda connection: charged(connection, wanted, groups, terms))
    _write(found, groups, money, format_, out)
    return None


def _write(found: list[Charge], by: tuple[str, ...], money: Any, format_: str, out: Path | None) -> None:  # noqa: ANN401  # a Currency, imported late
    from gateway.reports import focus
    from gateway.reports.forms import FORMS
    from gateway.reports.statement import columns, rows

    if format_ == "table":
        names = columns(by, money)
        lines = [["-" if value is None else str(value) for value in row.values()] for row in rows(found, by, money)]
        as_table("Report", names, lines, right=names[len(by) :])
        typer.echo(f"Total: {money.shown(sum(each.total for each in found))} {money.code}")
        return
    made: Iterable[Any] = focus.rows(found) if format_ == "focus" else rows(found, by, money)
    names = focus.COLUMNS if format_ == "focus" else columns(by, money)
    with _opened(out) as file:
        FORMS["csv" if format_ == "focus" else format_](names, made, file)


def _close(path: Path, month: str | None, terms: Terms, config: Path) -> None:
    import orjson

    from gateway.reports.statement import closed, month_of

    if month is None:
        fail("A month is closed: say which with --month.")
    if month_of(month)[1] > time.time():
        fail(f"{month} is not over yet.")
    made = _asked(config, lambda connection: closed(connection, month, terms))
    path.write_bytes(orjson.dumps(made, option=orjson.OPT_INDENT_2))
    typer.echo(
        f"{month} is closed: {len(made['lines'])} lines, {made['total_nano_usd']} nano-dollars, {made['sha256']}"
    )


def _verify(path: Path, config: Path) -> None:
    import orjson

    from gateway.reports.statement import differences

    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be read: {error}")
    if found := _asked(config, lambda connection: differences(connection, document)):
        fail(f"{document['month']} is not as it was closed:", problems=found)
    typer.echo(f"{document['month']} is as it was closed, to the nano-dollar.")


def _asked(config: Path, question: Callable[[Connection], T]) -> T:
    async def work(store: Store) -> T:
        return await store.database.run(question, timeout_s=REPORT_S)

    return with_store(config, work)


def _filter(month: str | None, since: str, until: str | None, tenant: str | None) -> Filter:
    from gateway.reports.statement import month_of
    from gateway.sql.records import Filter

    equal = {} if tenant is None else {"tenant": tenant}
    if month is not None:
        start, end = month_of(month)
        return Filter(since=start, until=end, equal=equal)
    now = time.time()
    return Filter(since=moment_of(since, now), until=None if until is None else moment_of(until, now), equal=equal)


def _terms(markups: list[str], shared: str, peak_weight: str) -> Terms:
    from gateway.money import nano
    from gateway.reports.charges import Terms

    everyone, named = Decimal(0), {}
    for text in markups:
        name, equals, percent = text.rpartition("=")
        share = _decimal(percent, "markup") / 100
        if equals:
            named[name] = share
        else:
            everyone = share
    peak = _decimal(peak_weight, "peak-weight")
    return Terms(everyone, named, nano(_decimal(shared, "shared")), 1 - peak, peak)


def _decimal(text: str, option: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite():
        raise ValueError(f"--{option}: {text!r} is no number")
    return found


def _focus_by() -> tuple[str, ...]:
    from gateway.reports.focus import BY

    return BY


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        return
    with out.open("wb") as file:
        yield file

"""`tollgate replay`: what recorded requests would have cost under these settings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import (
    CONFIG,
    ConfigOption,
    JsonOption,
    SinceOption,
    UntilOption,
    as_json,
    as_table,
    fail,
    settings_of,
    with_store,
)
from gateway.cli.spend import moment_of

if TYPE_CHECKING:
    from gateway.replay import Replay, Turnouts
    from gateway.sql.tenants import Store


def replay(
    config: ConfigOption = CONFIG,
    under: Annotated[
        str | None, typer.Option("--under", help="The settings to try; none: those of --config, at today's prices.")
    ] = None,
    since: SinceOption = "30d",
    until: UntilOption = None,
    route: Annotated[str | None, typer.Option(help="Only this route's requests.")] = None,
    json: JsonOption = False,
) -> None:
    """Say what recorded requests would have cost under other settings, and how far off that may be."""
    from pathlib import Path

    from gateway.catalog import build
    from gateway.replay import replay as replayed
    from gateway.sql.records import Filter

    now = time.time()
    try:
        wanted = Filter(
            since=moment_of(since, now),
            until=None if until is None else moment_of(until, now),
            equal={} if route is None else {"route": route},
        )
    except ValueError as error:
        fail(str(error), json=json)
    rows, turnouts = with_store(config, lambda store: _read(store, wanted), json=json)
    tried = Path(under) if under else config
    found = replayed(rows, build(settings_of(tried, json=json)), turnouts)
    if json:
        as_json(_described(found))
        return
    as_table(f"Requests since {since} under {tried}", ("figure", "value"), _rows(found), right=("value",))
    for line in _caveats(found):
        typer.echo(line)


async def _read(store: Store, wanted: Any) -> tuple[list[dict[str, Any]], Turnouts]:  # noqa: ANN401 - a Filter, imported when it runs
    from gateway.sql.outcomes import worth
    from gateway.sql.records import PAGE_MAX, page

    told = await store.database.run(lambda connection: worth(connection, wanted))
    turnouts = {(each.route, each.deployment): (each.mean, each.error) for each in told}
    found: list[dict[str, Any]] = []
    after: tuple[float, str] | None = None
    while True:
        here = after
        part = await store.database.run(lambda connection, here=here: page(connection, wanted, PAGE_MAX, here))  # type: ignore[misc]  # a default binds it
        found += part
        if len(part) < PAGE_MAX:
            return found, turnouts
        after = (part[-1]["at"], part[-1]["id"])


def _described(found: Replay) -> dict[str, Any]:
    from gateway.money import dollars

    return {
        "requests": found.requests,
        "skipped": found.skipped,
        "cost_was_usd": dollars(found.was),
        "cost_usd": dollars(found.cost),
        "cost_least_usd": dollars(found.least),
        "cost_most_usd": dollars(found.most),
        "error_usd": dollars(round(found.error)),
        "error_share": found.error / found.cost if found.cost else 0.0,
        "moved": found.moved,
        "deployments": found.deployments,
        "length_unknown": sorted(found.unseen),
        "quality_rated": found.rated,
        "quality_was": found.quality_was / found.rated if found.rated else None,
        "quality": found.quality / found.rated if found.rated else None,
        "quality_error": found.quality_error / found.rated if found.measured else None,
        "quality_measured": found.measured,
    }


def _rows(found: Replay) -> list[tuple[str, str]]:
    told = _described(found)
    rows = [
        ("requests", str(found.requests)),
        ("would go elsewhere", str(found.moved)),
        ("cost was $", told["cost_was_usd"]),
        ("cost would be $", told["cost_usd"]),
        ("+- $ (95 %)", told["error_usd"]),
    ]
    if found.least != found.most:
        rows += [("if nothing escalates $", told["cost_least_usd"]), ("if all does $", told["cost_most_usd"])]
    if found.rated:
        error = "" if told["quality_error"] is None else f" +- {told['quality_error']:.3f}"
        rows += [("quality was", f"{told['quality_was']:.3f}"), ("would be", f"{told['quality']:.3f}{error}")]
        rows.append(("of requests, by outcomes / by rating", f"{found.measured} / {found.rated - found.measured}"))
    return rows


def _caveats(found: Replay) -> list[str]:
    lines = [f"{count} left out: {why}." for why, count in found.skipped.items()]
    if found.unseen:
        names = ", ".join(sorted(found.unseen))
        lines.append(
            f"Too few answers of {names} are recorded to know how long they are: their output may be off by half."
        )
    if not found.rated:
        lines.append(
            "How good it would have been is not known: there are no outcomes, and no `quality` of deployments."
        )
    return [*lines, "Records keep no prompts: policies that read them abstain here, and only room was checked."]

"""`tollgate check`: everything that is wrong with a settings file, without starting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.show import JsonOption, as_json

if TYPE_CHECKING:
    from gateway.settings import Settings, SettingsError


def check(file: Annotated[Path, typer.Argument(help="The settings to check.")], json: JsonOption = False) -> None:
    """Check a settings file: every problem with its line; status 1 if there is one."""
    from gateway.catalog import build
    from gateway.settings import SettingsError, load

    try:
        settings = load(file)
    except SettingsError as error:
        _report_problems(error, json=json)
        raise typer.Exit(1) from None
    build(settings)
    if json:
        as_json({"ok": True, "problems": [], **_contents(settings)})
        return
    for notice in settings.notices:
        typer.secho(f"note: {notice}", err=True, fg="yellow")
    held = ", ".join(f"{kind} {len(names)}" for kind, names in _contents(settings).items() if kind != "notices")
    typer.secho(f"{file} is right ({held}).", fg="green")


def _report_problems(error: SettingsError, *, json: bool) -> None:
    if json:
        found = [
            {"file": problem.file, "line": problem.line, "key": problem.key, "message": problem.message}
            for problem in error.problems
        ]
        as_json({"ok": False, "problems": found})
        return
    for problem in error.problems:
        typer.secho(str(problem), err=True, fg="red")


def _contents(settings: Settings) -> dict[str, Any]:
    return {
        "providers": sorted(settings.providers),
        "deployments": sorted(settings.deployments),
        "routes": sorted(settings.routes),
        "tenants": [tenant.id for tenant in settings.tenants],
        "notices": list(settings.notices),
    }

"""`tollgate import`: another gateway's configuration as one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.show import JsonOption, as_json, fail

if TYPE_CHECKING:
    from gateway.imports.base import Converted

BYTES_MAX = 10_000_000


def import_(
    file: Annotated[Path, typer.Argument(help="LiteLLM's proxy configuration.", exists=True, dir_okay=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; else it is printed.")
    ] = None,
    free: Annotated[
        bool, typer.Option(help="Models without a known price cost nothing, as LiteLLM counts them.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Write over a file that is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Convert a LiteLLM configuration.  What does not hold as it did is told, with its line; secrets are not copied."""
    from gateway.document import SettingsError
    from gateway.imports.base import NotConvertible
    from gateway.imports.litellm import convert

    if output is not None and output.exists() and not force:
        fail(f"{output} is there already; --force writes over it.", json=json)
    if file.stat().st_size > BYTES_MAX:
        fail(f"{file} has more than {BYTES_MAX} bytes.", json=json)
    try:
        converted = convert(file.read_text("utf-8"), str(file), free=free)
    except (SettingsError, NotConvertible, UnicodeDecodeError) as error:
        fail(str(error), json=json)
    if output is not None:
        output.write_text(converted.text, "utf-8")
    _told(converted, output, json=json)


def _told(converted: Converted, output: Path | None, *, json: bool) -> None:
    """The result on standard output, unless a file has it; what to know about it on standard error."""
    if json:
        notes = [{"line": note.line, "key": note.key, "message": note.message} for note in converted.notes]
        as_json({"text": converted.text, "notes": notes, "variables": dict(converted.variables)})
        return
    if output is None:
        typer.echo(converted.text)
    for note in converted.notes:
        typer.secho(str(note), err=True, fg="yellow")
    if converted.variables:
        typer.echo("To be set in the environment:", err=True)
        for name, what in sorted(converted.variables.items()):
            typer.echo(f"  {name:<28} {what}", err=True)
    if output is not None:
        typer.echo(f"Wrote {output}; `tollgate check {output}` says whether it is right.", err=True)

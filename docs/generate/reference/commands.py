"""`tollgate` and its commands, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click
from typer.main import get_command

from gateway.cli import app
from reference.table import code, table


def page() -> str:
    """Each command with its arguments and options."""
    return "\n".join(_section(name, command) for name, command in commands())


def commands() -> list[tuple[str, click.Command]]:
    """Every command by how it is called."""
    return list(_below("tollgate", get_command(app)))


def _below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, each in inner.items():
        yield from _below(f"{name} {word}", each)


def _section(name: str, command: click.Command) -> str:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    rows = [(_called(parameter), getattr(parameter, "help", "") or "", _default(parameter)) for parameter in shown]
    rows = [row for row in rows if row[0] != code("--help")]
    listed = table(("", "", "default"), rows) if rows else ""
    return f"## {name}\n\n{(command.help or '').strip()}\n\n{listed}\n"


def _called(parameter: click.Parameter) -> str:
    if parameter.param_type_name == "argument":
        return code((parameter.metavar or parameter.name or "").upper())
    return ", ".join(code(option) for option in parameter.opts)


def _default(parameter: click.Parameter) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return code(value) if plain or hasattr(value, "__fspath__") else ""

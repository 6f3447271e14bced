"""Finds policies, dialects and credentials by entry point: ours the same way as anyone's.

A package adds a policy by an entry point in the group `tollgate.policies` that names a frozen dataclass with an `apply`
method (`gateway.plan.Policy`); the dataclass's fields are its options in YAML.  A dialect is a class in
`tollgate.dialects` made without arguments (`gateway.dialects.base.Dialect`), credentials one in `tollgate.credentials`
made with a provider (`gateway.credentials.base.Credentials`).  Nothing is imported before it is asked for.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from gateway.credentials.base import Credentials
from gateway.dialects.base import Dialect
from gateway.document import nearest
from gateway.plan import Policy
from gateway.types import Provider

POLICIES = "tollgate.policies"
DIALECTS = "tollgate.dialects"
CREDENTIALS = "tollgate.credentials"


class PluginError(Exception):
    """A plug-in that is not there, or that cannot be made.  `option` names the option that is wrong, if one is."""

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


@cache
def _found(group: str) -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def policy_names() -> list[str]:
    """The policies installed here."""
    return sorted(_found(POLICIES))


def dialect_names() -> list[str]:
    """The dialects installed here."""
    return sorted(_found(DIALECTS))


def policy(name: str, options: Mapping[str, Any]) -> Policy:
    """The policy called `name` with these options.  Raises PluginError."""
    kind = _loaded(POLICIES, "policy", name)
    problems = option_problems(name, kind, options)
    if problems:
        raise problems[0]
    return make(name, kind, options)


def policy_or_problems(name: str, options: Mapping[str, Any]) -> Policy | list[PluginError]:
    """As `policy`, but with every wrong option at once."""
    try:
        kind = _loaded(POLICIES, "policy", name)
        return option_problems(name, kind, options) or make(name, kind, options)
    except PluginError as error:
        return [error]


@cache
def dialect(name: str) -> Dialect:
    """The dialect called `name`; one object serves all.  Raises PluginError."""
    return cast("Dialect", _loaded(DIALECTS, "dialect", name)())


def dialects() -> Mapping[str, Dialect]:
    """Every dialect installed here, by name.  Raises PluginError if one cannot be loaded."""
    return {name: dialect(name) for name in dialect_names()}


def credentials_problem(name: str) -> PluginError | None:
    """Why there are no credentials of the kind `name` here; None if there are."""
    try:
        _loaded(CREDENTIALS, "credentials", name)
    except PluginError as error:
        return error
    return None


def credentials(provider: Provider) -> Credentials:
    """Those that the provider's options name.  Raises PluginError."""
    return cast("Credentials", _loaded(CREDENTIALS, "credentials", str(provider.options["credentials"]))(provider))


def make(name: str, kind: type, options: Mapping[str, Any]) -> Policy:
    """A policy from options whose names and types are right.  Raises PluginError for what the policy itself refuses."""
    hints = _hints(kind)
    try:
        made = kind(**{option: _typed(hints[option], value) for option, value in options.items()})
    except (TypeError, ValueError) as error:
        raise PluginError(str(error)) from error
    if not isinstance(made, Policy):
        raise PluginError(f"policy {name!r} has no apply method, so it is no policy")
    return made


def option_problems(name: str, kind: type, options: Mapping[str, Any]) -> list[PluginError]:
    """What is wrong with the options of a policy whose dataclass is `kind`."""
    if not dataclasses.is_dataclass(kind):
        return [PluginError(f"policy {name!r} is not a dataclass, so it cannot take options")]
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    hints = _hints(kind)
    problems = [
        PluginError(f"policy {name!r} has no such option{nearest(option, fields)}", option)
        for option in options
        if option not in fields
    ]
    for option, field in fields.items():
        if option not in options:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                problems.append(PluginError(f"policy {name!r} needs the option {option!r} ({_said(hints[option])})"))
            continue
        try:
            _typed(hints[option], options[option])
        except ValidationError as error:
            reason = error.errors(include_input=False)[0]["msg"]
            problems.append(PluginError(f"must be {_said(hints[option])}: {reason}", option))
    return problems


def _loaded(group: str, what: str, name: str) -> type:
    entry = _found(group).get(name)
    if entry is None:
        raise PluginError(f"unknown {what} {name!r}{nearest(name, _found(group))}")
    try:
        return cast("type", entry.load())
    except Exception as error:  # someone else's module may raise anything
        raise PluginError(f"{what} {name!r} ({entry.value}) cannot be loaded: {error}") from error


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _typed(hint: type, value: object) -> object:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    return adapter.validate_python(value)


def _said(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")

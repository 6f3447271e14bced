"""gateway.yaml, key by key, from the models that check it."""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
import types
import typing
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.configuration import quantities, schema
from gateway.configuration.schema import File, PricesFile, ProvidersFile, Shape
from reference.table import code, table

FILES = {"gateway.yaml": File, "providers.yaml": ProvidersFile, "prices.yaml": PricesFile}
WORDS: list[tuple[Any, str]] = [
    (quantities.Name, "name"),
    (quantities.ModelName, "model name"),
    (quantities.Dollars, "dollars"),
    (quantities.Rate, "dollars per million, or a bucket"),
    (quantities.Seconds, "duration (90s, 15m, 24h, 7d)"),
    (quantities.Minute, "time of day, UTC"),
    (quantities.Moment, "date or time"),
    (quantities.Count, "whole number, 1 or more"),
    (quantities.Positive, "number above 0"),
    (quantities.Url, "URL"),
    (schema.RateLimits, "one or a list of RateLimits"),
    (str, "text"),
    (int, "whole number"),
    (float, "number"),
    (bool, "true or false"),
    (Decimal, "number"),
    (date, "date"),
    (type(None), "null"),
    (Any, "anything"),
]
INTRODUCTION = """
In any text `${NAME}` stands for an environment variable, `${NAME:-text}` for it or else the text, `${NAME:+text}` for
the text if it is set, and `$${` for a literal `${`. An unknown key is an error that names the nearest known one;
`tollgate check FILE` finds everything that is wrong. Amounts are dollars, prices dollars per million tokens, and names
that end in `_s` are seconds.
"""


def page() -> str:
    """Every file and every section in it."""
    return INTRODUCTION + "\n".join(_section(shape, files) for shape, files in shapes())


def shapes() -> list[tuple[type[Shape], str]]:
    """Every model that can stand in a file, with the file's name where it is the whole of it."""
    found: dict[type[Shape], str] = {}
    for name, whole in FILES.items():
        found[whole] = name
        for inner in _within(whole):
            found.setdefault(inner, "")
    return list(found.items())


def title(shape: type[Shape], file: str = "") -> str:
    """What a section is called."""
    return file or shape.__name__.removesuffix("Shape")


def _within(shape: type[Shape]) -> Iterator[type[Shape]]:
    for hint in _hints(shape).values():
        for inner in _shapes_of(hint):
            yield inner
            yield from _within(inner)


def _hints(shape: type[Shape]) -> dict[str, Any]:
    hints = typing.get_type_hints(shape, include_extras=True)
    return {name: hints[name] for name in shape.model_fields}


def _shapes_of(hint: Any) -> Iterator[type[Shape]]:  # noqa: ANN401 - any annotation
    if isinstance(hint, type) and issubclass(hint, Shape):
        yield hint
    for inner in typing.get_args(hint):
        yield from _shapes_of(inner)


def _section(shape: type[Shape], file: str) -> str:
    comments = _comments(shape)
    rows = [
        (code(name), _said(hint), _default(shape.model_fields[name]), comments.get(name, ""))
        for name, hint in _hints(shape).items()
    ]
    told = inspect.cleandoc(shape.__doc__ or "")
    return f"\n## {title(shape, file)}\n\n{told}\n\n" + table(("key", "what it takes", "default", ""), rows) + "\n"


def _said(hint: Any) -> str:  # noqa: ANN401 - any annotation
    for known, words in WORDS:
        if hint == known:
            return words
    if isinstance(hint, type) and issubclass(hint, Shape):
        return f"[{title(hint)}](#{title(hint).lower()})"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ", ".join(code(member.value) for member in hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _said(args[0])
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_said(arg) for arg in args if arg is not type(None))
    if origin is typing.Literal:
        return ", ".join(code(arg) for arg in args)
    if origin is list:
        return f"list of {_said(args[0])}"
    if origin is dict:
        return f"{_said(args[0])}: {_said(args[1])}"
    raise TypeError(f"the reference has no words for {hint!r}")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else None
    return "" if value in (None, [], {}, "") or isinstance(value, Shape) else code(_yaml(value))


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


@cache
def _classes(module: str) -> dict[str, str]:
    """The source of each class of a module, which is parsed once: `inspect` does so for every class."""
    lines = inspect.getsource(sys.modules[module]).splitlines(keepends=True)
    found = ast.parse("".join(lines)).body
    return {
        each.name: "".join(lines[each.lineno - 1 : each.end_lineno]) for each in found if isinstance(each, ast.ClassDef)
    }


def _comments(shape: type[Shape]) -> dict[str, str]:
    """What stands behind each field in the source."""
    found: dict[str, str] = {}
    for kind in reversed([each for each in shape.__mro__ if issubclass(each, Shape)]):
        source = _classes(kind.__module__)[kind.__name__]
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            name = token.line.partition(":")[0].strip()
            if token.type == tokenize.COMMENT and name in kind.model_fields:
                found[name] = token.string.lstrip("# ")
    return found

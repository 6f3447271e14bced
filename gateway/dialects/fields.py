"""Reads JSON that anyone may have written: a value of the kind wanted, or InvalidRequest naming where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from gateway.errors import InvalidRequest

T = TypeVar("T")


def wrong(path: str, wanted: str, value: object) -> InvalidRequest:
    """The error that says what stands at `path` and what should."""
    return InvalidRequest(f"'{path}' must be {wanted}, not {_kind(value)}.", param=path)


def mapping(value: object, path: str) -> Mapping[str, Any]:
    if isinstance(value, dict | Mapping):  # dict first: asking an abstract class is slow
        return value
    raise wrong(path, "an object", value)


def items(value: object, path: str) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    raise wrong(path, "an array", value)


def string(value: object, path: str) -> str:
    if isinstance(value, str):
        return value
    raise wrong(path, "a string", value)


def strings(value: object, path: str) -> tuple[str, ...]:
    return tuple(string(item, f"{path}[{i}]") for i, item in enumerate(items(value, path)))


def number(value: object, path: str) -> float:
    """An int or a float, as it came."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise wrong(path, "a number", value)


def integer(value: object, path: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise wrong(path, "an integer", value)


def boolean(value: object, path: str) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong(path, "true or false", value)


def one_of(*allowed: str) -> Callable[[object, str], str]:
    """A reader of a word among `allowed`."""
    wanted = "one of " + ", ".join(allowed)

    def read(value: object, path: str) -> str:
        if isinstance(value, str):
            if value in allowed:
                return value
            raise InvalidRequest(f"'{path}' must be {wanted}, not '{value[:40]}'.", param=path)
        raise wrong(path, wanted, value)

    return read


def need(owner: Mapping[str, Any], name: str, read: Callable[[object, str], T], path: str = "") -> T:
    """The field `name` of the object at `path`, which must be there."""
    where = f"{path}.{name}" if path else name
    if name not in owner:
        raise InvalidRequest(f"'{where}' is missing.", param=where)
    return read(owner[name], where)


def maybe(owner: Mapping[str, Any], name: str, read: Callable[[object, str], T], path: str = "") -> T | None:
    """The field `name` of the object at `path`; None where it is absent or null."""
    value = owner.get(name)
    if value is None:
        return None
    return read(value, f"{path}.{name}" if path else name)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    for kinds, name in _KINDS:
        if isinstance(value, kinds):
            return name
    return type(value).__name__


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    ((int, float), "a number"),
    (Mapping, "an object"),
    ((list, tuple), "an array"),
)

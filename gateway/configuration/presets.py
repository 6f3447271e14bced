"""What every installation knows of vendors, prices and models: `gateway/data/*.yaml`, and an operator's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.configuration import price_list
from gateway.configuration.schema import (
    ModelFacts,
    PresetShape,
    PriceOverride,
    PricesFile,
    ProvidersFile,
    Shape,
    fields_at,
)
from gateway.document import Document, Path as Place, SettingsError, nearest, read, text_of

Kind = TypeVar("Kind", bound=Shape)

PROVIDERS = "providers.yaml"
PRICES = "prices.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # some build PyYAML without libyaml


@dataclass(frozen=True, slots=True)
class Known:
    """Presets by name; corrections in the order they apply, the last wins; families in the order they are tried."""

    providers: Mapping[str, PresetShape]
    prices: tuple[PriceOverride, ...]
    models: tuple[ModelFacts, ...]
    price_list: Path | None = None  # where a newer one may be


def known(beside: Path | None, env: Mapping[str, str]) -> Known:
    """What the package knows, and over it what the files in the directory `beside` say.  Raises SettingsError."""
    packaged = _packaged()
    if beside is None:
        return packaged
    providers = _own(beside / PROVIDERS, env, ProvidersFile)
    prices = _own(beside / PRICES, env, PricesFile)
    return Known(
        {**packaged.providers, **providers.providers},
        (*packaged.prices, *prices.prices),
        (*prices.models, *packaged.models),
        beside / price_list.FILE,
    )


@cache
def _packaged() -> Known:
    providers, prices = _shipped(PROVIDERS, ProvidersFile), _shipped(PRICES, PricesFile)
    return Known(providers.providers, tuple(prices.prices), tuple(prices.models))


def _shipped(name: str, shape: type[Kind]) -> Kind:
    """A file of ours: it has no mistakes whose line anyone must know, and libyaml reads it ten times as fast."""
    text = (files("gateway") / "data" / name).read_text("utf-8")
    return shape.model_validate(yaml.load(text, _LOADER))  # noqa: S506  # safe, either of them


def _own(path: Path, env: Mapping[str, str], shape: type[Kind]) -> Kind:
    if not path.is_file():
        return shape()
    document = read(text_of(path), env, str(path))
    shaped = fitted(document, shape)
    document.check()
    if shaped is None:
        raise SettingsError(document.problems)
    return shaped


def fitted(document: Document, shape: type[Kind]) -> Kind | None:
    """The document as `shape`; None, with its problems noted, if it does not fit."""
    value = {} if document.value is None else document.value
    unset = set(document.unset)
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            place = _written(document, detail["loc"])
            if not _waits_for(place, unset):
                document.problem(place, _said(detail, shape))
        return None


def _written(document: Document, place: Place) -> Place:
    """The place as it is in the file, where one mapping may stand for a list of them."""
    found: Place = ()
    for part in place:
        if isinstance(part, str) or (*found, part) in document.lines:
            found = (*found, part)
    return found


def _waits_for(place: Place, unset: set[Place]) -> bool:
    """Whether the value is only wrong because a variable is not set, which is a problem of its own."""
    return any(place[: len(path)] == path for path in unset)


def _said(detail: ErrorDetails, shape: type[Shape]) -> str:
    *around, last = detail["loc"] or ("",)
    match detail["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"unknown key{nearest(str(last), fields_at(shape, tuple(around)))}"
        case "value_error":
            return str(detail["ctx"]["error"])
        case _:
            message = detail["msg"]
            return message.replace("Input should be", "must be").replace("String should", "must")

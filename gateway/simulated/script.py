"""How a simulated answer should go, read from the model's name and the request's metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from math import isfinite
from typing import Any
from urllib.parse import parse_qsl

PREFIX = "sim_"


class Place(StrEnum):
    """Where in a reply something goes wrong."""

    NOWHERE = ""
    CONNECT = "connect"  # the provider is not there
    BEFORE = "before"  # the request was sent; no byte comes back
    HEADERS = "headers"  # after the status line and headers, before the first token
    MIDDLE = "middle"  # half of the answer has come


class WrongUsage(StrEnum):
    """Contradictions that real providers have sent."""

    NO = ""
    CACHED = "cached"  # more cached tokens than prompt tokens
    NEGATIVE = "negative"  # -9 output tokens


@dataclass(frozen=True, slots=True)
class Script:
    """What the simulated provider does with one request.

    Each field is an option of the model's name (`sim-small?tps=200&output=120`), of `metadata.sim` (the same syntax)
    and of `metadata` under the prefix `sim_`; the later of these wins.
    """

    latency_ms: float = 0.0  # until the headers
    first_token_ms: float = 20.0  # from the headers to the first token
    tps: float = 0.0  # tokens per second; 0: as fast as it goes
    output: int | None = None  # visible tokens; None: 20 to 200, drawn from the prompt
    reasoning: int = 0  # tokens before the visible ones
    cached: float = 0.0  # share of the prompt read from the prompt cache, 0..1
    status: int = 200
    code: str = ""  # error code beside the status
    retry_after: float | None = None  # seconds, on an error
    error: Place = Place.NOWHERE  # middle: the stream reports an error of `status` halfway
    reset: Place = Place.NOWHERE  # the connection breaks
    stall: Place = Place.NOWHERE  # nothing more comes, and the connection stays open
    no_usage: bool = False
    wrong_usage: WrongUsage = WrongUsage.NO
    finish: str = ""  # length or content_filter, whatever the answer
    tool: str = ""  # NAME or NAME({"json": "arguments"})
    refusal: bool = False
    echo: bool = False  # answer with the last message


class ScriptError(ValueError):
    """An option that does not exist or a value it cannot have; says which would be right."""


def read(body: Mapping[str, Any]) -> tuple[str, Script]:
    """The model's bare name and the script of a request.  Raises ScriptError."""
    name, _, query = str(body.get("model", "")).partition("?")
    values = dict(parse_qsl(query, keep_blank_values=True))
    metadata = body.get("metadata")
    if isinstance(metadata, Mapping):
        values |= dict(parse_qsl(str(metadata.get("sim", "")), keep_blank_values=True))
        values |= dict(_prefixed(metadata))
    for option in values:
        if option not in OPTIONS:
            near = get_close_matches(option, OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(OPTIONS)}"
            raise ScriptError(f"The simulated provider has no option {option!r}; {hint}")
    chosen: dict[str, Any] = {option: _value(option, text) for option, text in values.items()}
    return name, Script(**chosen)


def _prefixed(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in metadata.items():
        if key.startswith(PREFIX):
            yield key.removeprefix(PREFIX), str(value)


def _value(option: str, text: str) -> str | float | bool:
    try:
        return OPTIONS[option](text)
    except ValueError as error:
        raise ScriptError(f"The simulated provider cannot have {option}={text!r}: {error}") from None


def _positive(text: str) -> float:
    number = float(text)
    if not isfinite(number) or number < 0:
        raise ValueError("a number of 0 or more")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 1_000_000:
        raise ValueError("a whole number from 0 to 1000000")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError("a share from 0 to 1")
    return number


def _status(text: str) -> int:
    number = int(text)
    if number != 200 and not 400 <= number <= 599:
        raise ValueError("an HTTP status from 400 to 599")
    return number


def _flag(text: str) -> bool:
    if text.lower() in {"", "1", "true", "yes"}:
        return True
    if text.lower() in {"0", "false", "no"}:
        return False
    raise ValueError("1 or 0")


def _place(text: str) -> Place:
    return Place(text) if text not in {"1", "true"} else Place.MIDDLE


def _finish(text: str) -> str:
    if text not in {"", "stop", "length", "content_filter"}:
        raise ValueError("stop, length or content_filter")
    return text


OPTIONS: Mapping[str, Callable[[str], str | float | bool]] = {
    "latency_ms": _positive,
    "first_token_ms": _positive,
    "tps": _positive,
    "output": _whole,
    "reasoning": _whole,
    "cached": _share,
    "status": _status,
    "code": str,
    "retry_after": _positive,
    "error": _place,
    "reset": _place,
    "stall": _place,
    "no_usage": _flag,
    "wrong_usage": WrongUsage,
    "finish": _finish,
    "tool": str,
    "refusal": _flag,
    "echo": _flag,
}

"""One request to the simulated provider -> what it sends back and when.  A transport or a server plays it."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import orjson

from gateway.errors import InvalidRequest
from gateway.simulated import chat, messages
from gateway.simulated.answer import Answer, compose
from gateway.simulated.ask import Ask, BadRequest, read_chat, read_messages
from gateway.simulated.script import Place, Script, ScriptError, read
from gateway.tokens.encodings import load
from gateway.types import Format

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

InputTokens: TypeAlias = Callable[[Format, Mapping[str, Any]], int]
"""The input tokens of a request body.  Raises InvalidRequest."""


class Fault(StrEnum):
    """What the connection does instead of carrying the next bytes."""

    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Reply:
    """A status at `starts_s`, then pieces of the body at their times; all in seconds since the request came."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[tuple[float, bytes | Fault]]
    starts_s: float = 0.0
    instead: Place = Place.NOWHERE  # connect or before: nothing is sent
    fault: Fault = Fault.RESET  # what happens there


@dataclass(frozen=True, slots=True)
class Wire:
    """One of the two formats the simulated provider speaks."""

    format: Format
    read: Callable[[Mapping[str, Any]], Ask]
    whole: Callable[[Answer, Ask, Script], bytes]
    events: Callable[[Answer, Ask, Script], Iterator[tuple[int, bytes]]]
    failed: Callable[[int, str, str], dict[str, Any]]
    failed_event: Callable[[int, str, str], bytes]


CHAT = Wire(Format.CHAT, read_chat, chat.whole, chat.events, chat.failed, chat.failed_event)
MESSAGES = Wire(
    Format.MESSAGES,
    read_messages,
    lambda answer, _, script: messages.whole(answer, script),
    lambda answer, _, script: messages.events(answer, script),
    messages.failed,
    messages.failed_event,
)


def respond(path: str, body: bytes, created: int, input_tokens: InputTokens) -> Reply:
    """The reply to a POST of `body` to `path`: /v1/messages is Anthropic's, any .../chat/completions is OpenAI's."""
    wire = MESSAGES if path.endswith("/messages") else CHAT
    if wire is CHAT and not path.endswith("/chat/completions"):
        return _failure(wire, Script(status=404, first_token_ms=0), f"The simulated provider has no {path}")
    try:
        parsed = _parsed(body)
        model, script = read(parsed)
        ask = wire.read(parsed)
        used = input_tokens(wire.format, parsed)
    except (orjson.JSONDecodeError, BadRequest, ScriptError, InvalidRequest) as error:
        return _failure(wire, Script(status=400), str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # fields of types no request has
        return _failure(wire, Script(status=400), f"The request is malformed: {error}")
    if script.status != 200 and script.error is Place.NOWHERE:
        return _failure(wire, script, f"The script says {script.status}")
    answer = compose(ask, script, model, used, created, cut)
    return (_streamed if ask.stream else _whole)(wire, answer, ask, script)


def _parsed(body: bytes) -> dict[str, Any]:
    parsed = orjson.loads(body)
    if not isinstance(parsed, dict) or not parsed.get("model"):
        raise BadRequest("model: a model is required")
    return parsed


def cut(text: str) -> Sequence[str]:
    """A text as its o200k tokens; a character that spans tokens stands in the last of them."""
    encoding = load("o200k_base")
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(token) for token in encoding.decode_tokens_bytes(encoding.encode_ordinary(text))]


def _failure(wire: Wire, script: Script, message: str) -> Reply:
    body = orjson.dumps(wire.failed(script.status, message, script.code))
    headers = {**JSON, "content-length": str(len(body))}
    if script.retry_after is not None:
        headers["retry-after"] = f"{script.retry_after:g}"
    place, fault = _trouble(script)
    starts_s = script.latency_ms / 1000
    return Reply(script.status, headers, iter([(starts_s, body)]), starts_s, _early(place), fault)


def _whole(wire: Wire, answer: Answer, ask: Ask, script: Script) -> Reply:
    body = wire.whole(answer, ask, script)
    place, fault = _trouble(script)
    at = _first_s(script) + _grown_s(script, max(choice.tokens for choice in answer.choices))
    pieces: list[tuple[float, bytes | Fault]] = [(at, body)]
    if place is Place.HEADERS:
        pieces = [(at, fault)]
    elif place is Place.MIDDLE:
        pieces = [(at, body[: len(body) // 2]), (at, fault)]
    return Reply(200, {**JSON, "content-length": str(len(body))}, iter(pieces), at, _early(place), fault)


def _streamed(wire: Wire, answer: Answer, ask: Ask, script: Script) -> Reply:
    place, fault = _trouble(script)
    end: bytes | Fault = fault
    first_s = _first_s(script)
    events = wire.events(answer, ask, script)
    if place is Place.NOWHERE and script.error is not Place.NOWHERE:
        status = 500 if script.status == 200 else script.status
        place, end = script.error, wire.failed_event(status, f"The script says {status}", script.code)

    def pieces() -> Iterator[tuple[float, bytes | Fault]]:
        last = {Place.HEADERS: -1, Place.MIDDLE: _halfway(answer)}.get(place)
        for tokens, data in events:
            if last is not None and tokens > last:
                yield first_s + _grown_s(script, max(0, last)), end
                return
            yield first_s + _grown_s(script, tokens), data

    return Reply(200, SSE, pieces(), script.latency_ms / 1000, _early(place), fault)


def _halfway(answer: Answer) -> int:
    """The token after which half of the visible answer is still to come."""
    longest = max(answer.choices, key=lambda choice: choice.tokens)
    return longest.tokens - max(1, (len(longest.pieces) + 1) // 2)


def _trouble(script: Script) -> tuple[Place, Fault]:
    if script.stall is not Place.NOWHERE:
        return script.stall, Fault.STALL
    return script.reset, Fault.RESET


def _early(place: Place) -> Place:
    return place if place in {Place.CONNECT, Place.BEFORE} else Place.NOWHERE


def _first_s(script: Script) -> float:
    return (script.latency_ms + script.first_token_ms) / 1000


def _grown_s(script: Script, tokens: int) -> float:
    return tokens / script.tps if script.tps else 0.0

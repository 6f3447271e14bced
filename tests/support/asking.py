"""Asking a gateway for recordings with the official SDKs, and what is to come of it."""

from __future__ import annotations

import hashlib
import inspect
import json
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import corpus
import grown
import httpx
import openai
import replayed
import surfaces
from corpus import Row
from surfaces import Surface

from gateway import money, plugins
from gateway.dialects import relay
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Deployment, Estimate, Format, Usage

CAP = 1000
BOTH = (Format.CHAT, Format.MESSAGES)
CLIENTS = dict.fromkeys(("chat", "messages", "gemini", "converse", "cohere", "ollama"), BOTH)
"""Who may ask for a reply of a surface; of any other those who speak it."""


@dataclass(frozen=True)
class Case:
    """One reply asked for by one client from one deployment; `how` its bytes are cut."""

    row: Row
    at: Surface
    client: Format
    how: str
    place: str

    @property
    def stream(self) -> bool:
        return surfaces.streams(self.row)


@dataclass(frozen=True)
class Got:
    """What came of it: the objects of the SDK as JSON, or how it failed; and the request's id."""

    said: Any
    error: str = ""
    id: str = ""
    status: int = 200
    headers: Any = None
    usage: Usage | None = None
    cost: int | None = None


@dataclass(frozen=True)
class Booked:
    """What the gateway's database has of a request."""

    tokens: dict[str, int]
    fees: dict[str, int]
    cost: int | None
    estimated: bool
    outcome: str
    tokens_estimated: int


def body(case: Case) -> dict[str, Any]:
    """What the client asks."""
    asked = {"model": case.place, **_wish(case.client, replayed.prompt(case.row, case.how))}
    if case.stream:
        asked["stream"] = True
    wanted = case.row["request_body"] if isinstance(case.row["request_body"], dict) else {}
    if case.client is Format.CHAT and isinstance(wanted.get("n"), int):
        asked["n"] = wanted["n"]
    if case.stream and case.client in (Format.CHAT, Format.COMPLETIONS):
        asked["stream_options"] = {"include_usage": True}
    return asked


def _wish(client: Format, text: str) -> dict[str, Any]:
    """A request of the format, with the text in it."""
    match client:
        case Format.CHAT | Format.MESSAGES:
            return {"messages": [{"role": "user", "content": text}], "max_tokens": CAP}
        case Format.COMPLETIONS | Format.IMAGES:
            return {"prompt": text}
        case Format.IMAGE_EDITS:
            return {"prompt": text, "image": ("a.png", b"PNG", "image/png")}
        case Format.IMAGE_VARIATIONS:
            return {"user": text, "image": ("a.png", b"PNG", "image/png")}
        case Format.RERANK:
            return {"query": text, "documents": ["a", "b"]}
        case Format.SPEECH:
            return {"input": text, "voice": "alloy"}
        case Format.TRANSCRIPTIONS | Format.TRANSLATIONS:
            return {"prompt": text, "file": ("a.wav", b"RIFF", "audio/wav")}
        case Format.EMBEDDINGS:
            return {"input": text, "encoding_format": "float"}
        case _:
            return {"input": text}


class Clients:
    """The official SDKs, and plain HTTP where they have no word for it; none of them tries again."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"api_key": replayed.KEY, "max_retries": 0, "timeout": 120}
        self._openai = openai.AsyncOpenAI(base_url=f"{url}/v1", **options)
        self._anthropic = anthropic.AsyncAnthropic(base_url=url, **options)
        of = self._openai
        self._calls: dict[Format, Callable[..., Awaitable[Any]]] = {
            Format.CHAT: of.chat.completions.with_raw_response.create,
            Format.RESPONSES: of.responses.with_raw_response.create,
            Format.COMPLETIONS: of.completions.with_raw_response.create,
            Format.EMBEDDINGS: of.embeddings.with_raw_response.create,
            Format.MODERATIONS: of.moderations.with_raw_response.create,
            Format.IMAGES: of.images.with_raw_response.generate,
            Format.IMAGE_EDITS: of.images.with_raw_response.edit,
            Format.IMAGE_VARIATIONS: of.images.with_raw_response.create_variation,
            Format.TRANSCRIPTIONS: of.audio.transcriptions.with_raw_response.create,
            Format.TRANSLATIONS: of.audio.translations.with_raw_response.create,
            Format.SPEECH: of.audio.speech.with_raw_response.create,
            Format.MESSAGES: self._anthropic.messages.with_raw_response.create,
            Format.RERANK: lambda **asked: of.post("/rerank", cast_to=httpx.Response, body=asked),
        }

    async def close(self) -> None:
        await self._openai.close()
        await self._anthropic.close()

    async def ask(self, case: Case) -> Got:
        """One reply, read to its end."""
        said: list[Any] = []
        id_ = ""
        try:
            raw = await self._calls[case.client](**body(case))
            id_ = raw.headers["x-tollgate-request-id"]
            reply = raw.parse() if hasattr(raw, "parse") else raw
            reply = await reply if inspect.isawaitable(reply) else reply
            if not case.stream:
                return Got(_plain(reply), id=id_)
            async for event in reply:
                said.append(_plain(event))  # noqa: PERF401  # what was said before a failure counts
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            headers = error.response.headers
            return Got(said, _code(error.body), headers["x-tollgate-request-id"], error.status_code, headers)
        except (openai.APIError, anthropic.APIError) as error:
            return Got(said, _code(error.body), id_)
        except ValueError as error:
            return Got(said, f"the SDK cannot read it: {error}", id_)
        return Got(said, id=id_)


def _plain(reply: Any) -> Any:
    if hasattr(reply, "to_dict"):
        return reply.to_dict(mode="json", warnings=False)  # providers send what no type foresees
    return _read(reply if isinstance(reply, str) else reply.content.decode("latin-1"))


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _code(body: Any) -> str:
    inner = body.get("error", body) if isinstance(body, dict) else {}
    return str(inner.get("code") or inner.get("type")) if isinstance(inner, dict) else str(inner)


def expected(case: Case, deployment: Deployment, data: bytes) -> Got:
    """What the dialect alone makes of the bytes in one piece."""
    asked = {name: value for name, value in body(case).items() if name not in ("file", "image")}
    decoder = plugins.dialect(deployment.provider.dialect).decoder(
        corpus.request(case.client, asked),
        Step(deployment, Estimate(7, 9), CAP, 50, 0.0),
        lambda usage: money.cost(usage, deployment.price, 0),
    )
    error, out = "", b""
    try:
        out = decoder.feed(data)
        out += decoder.finish()
    except GatewayError as failure:
        error = relay.error_code(failure)
    usage = decoder.meter.usage
    cost = None if usage is None else money.cost(usage, deployment.price, 0).total
    return Got(_told(case, out), error, usage=usage, cost=cost)


def _told(case: Case, out: bytes) -> Any:
    """What the client's SDK makes of the bytes."""
    if not case.stream:
        return _read(out.decode("latin-1" if case.client is Format.SPEECH else "utf-8")) if out else []
    events = list(grown.events(out))
    return [event for event in events if event.get("type") != "ping"] if case.client is Format.MESSAGES else events


MADE = {"chat.completion", "chat.completion.chunk"}


def digest(said: Any, case: Case) -> str:
    """Equal where the same was said."""
    return hashlib.sha256(json.dumps(same(said, case), sort_keys=True).encode()).hexdigest()


def same(said: Any, case: Case) -> Any:
    """Without what the gateway makes up anew each time, and its own first estimate."""
    if isinstance(said, list):
        return [same(one, case) for one in said]
    if isinstance(said, float) and said.is_integer():
        return int(said)
    if not isinstance(said, dict):
        return said
    left_out: set[str] = set()
    if said.get("object") in MADE:
        left_out = {"created", "id"}
    if said.get("type") == "message" and case.stream:
        left_out = {"id", "usage"}
    elif said.get("type") == "message":
        left_out = {"id"}
    return {name: same(value, case) for name, value in said.items() if name not in left_out}


def booked(database: Path) -> dict[str, Booked]:
    """Every record of a gateway that has stopped, by the request's id."""
    asked = "select id, tokens, fees, cost, estimated, outcome, tokens_estimated from records"
    with sqlite3.connect(database) as connection:
        return {
            id_: Booked(json.loads(tokens), json.loads(fees), cost, bool(estimated), *rest)
            for id_, tokens, fees, cost, estimated, *rest in connection.execute(asked)
        }

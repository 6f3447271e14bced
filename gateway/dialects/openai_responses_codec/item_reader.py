"""The input of an OpenAI Responses request -> turns in canonical form."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from gateway.conversation import (
    Audio,
    Document,
    Image,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    merged,
)
from gateway.dialects import fields
from gateway.dialects.fields import maybe, need
from gateway.dialects.openai_chat_codec.turn_reader import data_url
from gateway.errors import InvalidRequest
from gateway.types import Format

Fields: TypeAlias = Mapping[str, Any]

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}
_ROLE = fields.one_of(*_ROLES)


def read_input(value: object) -> tuple[list[Text], tuple[Turn, ...]]:
    """System texts before anyone spoke, and the turns.  Raises InvalidRequest naming the place."""
    if isinstance(value, str):
        return [], merged([Turn(Role.USER, (Text(value),) if value else ())])
    system: list[Text] = []
    turns: list[Turn] = []
    for i, item in enumerate(fields.items(value, "input")):
        turn = _item(fields.mapping(item, f"input[{i}]"), f"input[{i}]")
        if turn.role is Role.SYSTEM and not turns:
            system += _texts(turn.parts, f"input[{i}]")
        else:
            turns.append(turn)
    return system, merged(turns)


def reasoning(item: Fields, path: str = "") -> Iterator[Reasoning]:
    """A thought: what can be read of it, and what only its provider can read, which proves the former."""
    texts = [
        need(fields.mapping(part, f"{path}.{name}[]"), "text", fields.string, f"{path}.{name}[]")
        for name in ("summary", "content")
        for part in maybe(item, name, fields.items, path) or ()
    ]
    text, sealed = "\n\n".join(texts), maybe(item, "encrypted_content", fields.string, path) or ""
    if text:
        yield Reasoning(text, sealed)
    elif sealed:
        yield Reasoning(encrypted=sealed)


def _texts(parts: Sequence[Part], path: str) -> list[Text]:
    texts = [part for part in parts if isinstance(part, Text)]
    if len(texts) != len(parts):
        raise InvalidRequest(f"'{path}.content' may hold only text.", param=f"{path}.content")
    return texts


def _item(item: Fields, path: str) -> Turn:
    kind = maybe(item, "type", fields.string, path) or "message"
    match kind:
        case "message":
            return _message(item, path)
        case "function_call":
            call = ToolCall(
                need(item, "call_id", fields.string, path),
                need(item, "name", fields.string, path),
                need(item, "arguments", fields.string, path),
                path=f"{path}.arguments",
            )
            return Turn(Role.ASSISTANT, (call,))
        case "function_call_output":
            parts = tuple(_content(item.get("output"), f"{path}.output"))
            return Turn(
                Role.USER, (ToolResult(need(item, "call_id", fields.string, path), parts, path=f"{path}.output"),)
            )
        case "reasoning":
            return Turn(Role.ASSISTANT, tuple(reasoning(item, path)))
        case _:
            role = Role.USER if kind.endswith("_output") else Role.ASSISTANT
            return Turn(role, (Opaque(Format.RESPONSES, kind, item, path),))


def _message(item: Fields, path: str) -> Turn:
    role = _ROLES[need(item, "role", _ROLE, path)]
    return Turn(role, tuple(_content(item.get("content"), f"{path}.content")))


def _content(value: object, path: str) -> Iterator[Part]:
    if isinstance(value, str):
        if value:
            yield Text(value)
        return
    for i, entry in enumerate(fields.items(value, path)):
        where = f"{path}[{i}]"
        part = fields.mapping(entry, where)
        kind = need(part, "type", fields.string, where)
        read = _PARTS.get(kind)
        found = read(part, where) if read else Opaque(Format.RESPONSES, kind, part, where)
        if found is not None:
            yield found


def _text(part: Fields, path: str) -> Part | None:
    text = need(part, "text", fields.string, path)
    return Text(text) if text else None


def _refusal(part: Fields, path: str) -> Part | None:
    return Refusal(need(part, "refusal", fields.string, path))


def _image(part: Fields, path: str) -> Part | None:
    detail = maybe(part, "detail", fields.string, path) or ""
    if file_id := maybe(part, "file_id", fields.string, path):
        return Image(file_id=file_id, detail=detail, path=path)
    url = need(part, "image_url", fields.string, path)
    if not url.startswith("data:"):
        return Image(url=url, detail=detail, path=path)
    media_type, data = data_url(url, f"{path}.image_url")
    return Image(data=data, media_type=media_type, detail=detail, path=path)


def _file(part: Fields, path: str) -> Part | None:
    title = maybe(part, "filename", fields.string, path) or ""
    if file_id := maybe(part, "file_id", fields.string, path):
        return Document(file_id=file_id, title=title, path=path)
    if url := maybe(part, "file_url", fields.string, path):
        return Document(url=url, title=title, path=path)
    data, media_type = need(part, "file_data", fields.string, path), "application/pdf"
    if data.startswith("data:"):
        media_type, data = data_url(data, f"{path}.file_data")
    if media_type != "text/plain":
        return Document(data, media_type, title=title, path=path)
    try:
        text = b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        where = f"{path}.file_data"
        raise InvalidRequest(f"'{where}' must be UTF-8 text in base64.", param=where) from error
    return Document(text=text, media_type=media_type, title=title, path=path)


def _audio(part: Fields, path: str) -> Part | None:
    audio = need(part, "input_audio", fields.mapping, path)
    where = f"{path}.input_audio"
    data = need(audio, "data", fields.string, where)
    return Audio(data, need(audio, "format", fields.string, where), path=where)


_PARTS: Mapping[str, Callable[[Fields, str], Part | None]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "summary_text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}

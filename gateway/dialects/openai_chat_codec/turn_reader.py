"""The messages of an OpenAI Chat Completions request -> turns in canonical form."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from gateway.conversation import (
    Audio,
    CacheMark,
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
    marked,
    merged,
)
from gateway.dialects import fields
from gateway.dialects.blocks import read_cache
from gateway.dialects.fields import maybe, need
from gateway.errors import InvalidRequest
from gateway.types import Format

Fields: TypeAlias = Mapping[str, Any]

HARMLESS = frozenset(
    {
        "annotations",  # of what was answered before
        "reasoning",
        "reasoning_details",
        "prefix",  # a last assistant turn is continued anyway
    }
)
"""Message fields that change nothing in the answer."""

_KNOWN: Mapping[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "cache_control"}),
    "developer": frozenset({"role", "content", "cache_control"}),
    "user": frozenset({"role", "content", "cache_control"}),
    "tool": frozenset({"role", "content", "cache_control", "tool_call_id", "is_error", "name"}),
    "assistant": frozenset(
        {"role", "content", "cache_control", "refusal", "tool_calls", "reasoning_content", "thinking_blocks"}
    ),
}


def read_messages(messages: Sequence[Any]) -> tuple[tuple[Text, ...], tuple[Turn, ...], dict[str, Any]]:
    """System texts, turns, and by path the message fields that have no place in either."""
    system: list[Text] = []
    turns: list[Turn] = []
    extras: dict[str, Any] = {}
    for i, value in enumerate(messages):
        path = f"messages[{i}]"
        message = fields.mapping(value, path)
        role = need(message, "role", _ROLE, path)
        for name in message.keys() - _KNOWN[role] - HARMLESS:
            if message[name] is not None:
                extras[f"{path}.{name}"] = message[name]
        if role in ("system", "developer") and not turns:
            system += _system(message, path)
        else:
            turns.append(Turn(_ROLES[role], _READERS[role](message, path)))
    return tuple(system), merged(turns), extras


def data_url(url: str, path: str) -> tuple[str, str]:
    """The media type and base64 text of a data: URL."""
    head, found, data = url.partition(",")
    media_type, *flags = head.removeprefix("data:").split(";")
    if not found or "base64" not in flags:
        raise InvalidRequest(f"'{path}' must be a data: URL in base64, as data:image/png;base64,...", param=path)
    return media_type, data


def _system(message: Fields, path: str) -> tuple[Text, ...]:
    parts = _cached(message, path, tuple(_content(message, path)))
    texts = tuple(part for part in parts if isinstance(part, Text))
    if len(texts) != len(parts):
        raise InvalidRequest(f"'{path}.content' may hold only text.", param=f"{path}.content")
    return texts


def _user(message: Fields, path: str) -> tuple[Part, ...]:
    return _cached(message, path, tuple(_content(message, path)))


def _tool(message: Fields, path: str) -> tuple[Part, ...]:
    id_ = need(message, "tool_call_id", fields.string, path)
    is_error = maybe(message, "is_error", fields.boolean, path) or False
    cache = maybe(message, "cache_control", read_cache, path)
    return (ToolResult(id_, tuple(_content(message, path)), is_error, cache, f"{path}.content"),)


def _assistant(message: Fields, path: str) -> tuple[Part, ...]:
    parts: list[Part] = [*_reasoning(message, path), *_content(message, path)]
    if refusal := maybe(message, "refusal", fields.string, path):
        parts.append(Refusal(refusal))
    for i, call in enumerate(maybe(message, "tool_calls", fields.items, path) or ()):
        parts.append(_tool_call(call, f"{path}.tool_calls[{i}]"))
    return _cached(message, path, tuple(parts))


_ROLE = fields.one_of(*_KNOWN)
_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "tool": Role.USER,
    "assistant": Role.ASSISTANT,
}
_READERS: Mapping[str, Callable[[Fields, str], tuple[Part, ...]]] = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "tool": _tool,
    "assistant": _assistant,
}


def _cached(message: Fields, path: str, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return marked(parts, maybe(message, "cache_control", read_cache, path))


def _reasoning(message: Fields, path: str) -> Iterator[Part]:
    blocks = maybe(message, "thinking_blocks", fields.items, path)
    for i, value in enumerate(blocks or ()):
        where = f"{path}.thinking_blocks[{i}]"
        block = fields.mapping(value, where)
        if need(block, "type", _BLOCK, where) == "redacted_thinking":
            yield Reasoning(encrypted=need(block, "data", fields.string, where))
        else:
            signature = maybe(block, "signature", fields.string, where) or ""
            yield Reasoning(need(block, "thinking", fields.string, where), signature)
    if not blocks and (text := maybe(message, "reasoning_content", fields.string, path)):
        yield Reasoning(text)


_BLOCK = fields.one_of("thinking", "redacted_thinking")


def _tool_call(value: object, path: str) -> Part:
    call = fields.mapping(value, path)
    kind = maybe(call, "type", fields.string, path) or "function"
    if kind != "function":
        return Opaque(Format.CHAT, kind, call, path)
    function = need(call, "function", fields.mapping, path)
    where = f"{path}.function"
    return ToolCall(
        need(call, "id", fields.string, path),
        need(function, "name", fields.string, where),
        need(function, "arguments", fields.string, where),
        maybe(call, "cache_control", read_cache, path),
        f"{where}.arguments",
    )


def _content(message: Fields, path: str) -> Iterator[Part]:
    content = message.get("content")
    path = f"{path}.content"
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    for i, value in enumerate(() if content is None else fields.items(content, path)):
        where = f"{path}[{i}]"
        part = fields.mapping(value, where)
        kind = need(part, "type", fields.string, where)
        read = _PARTS.get(kind)
        found = read(part, where, _part_cache(part, where)) if read else Opaque(Format.CHAT, kind, part, where)
        if found is not None:
            yield found


def _part_cache(part: Fields, path: str) -> CacheMark | None:
    mark = maybe(part, "cache_control", read_cache, path)
    return mark or maybe(part, "prompt_cache_breakpoint", read_cache, path)


def _text(part: Fields, path: str, cache: CacheMark | None) -> Part | None:
    text = need(part, "text", fields.string, path)
    return Text(text, cache=cache) if text else None


def _refusal(part: Fields, path: str, _cache: CacheMark | None) -> Part | None:
    return Refusal(need(part, "refusal", fields.string, path))


def _image(part: Fields, path: str, cache: CacheMark | None) -> Part | None:
    value = part.get("image_url")
    path = f"{path}.image_url"
    image = {"url": value} if isinstance(value, str) else fields.mapping(value, path)
    url = need(image, "url", fields.string, path)
    detail = maybe(image, "detail", fields.string, path) or ""
    if not url.startswith("data:"):
        return Image(url=url, detail=detail, cache=cache, path=path)
    media_type, data = data_url(url, f"{path}.url")
    return Image(data=data, media_type=media_type, detail=detail, cache=cache, path=path)


def _audio(part: Fields, path: str, cache: CacheMark | None) -> Part | None:
    audio = need(part, "input_audio", fields.mapping, path)
    path = f"{path}.input_audio"
    return Audio(need(audio, "data", fields.string, path), need(audio, "format", fields.string, path), cache, path)


def _file(part: Fields, path: str, cache: CacheMark | None) -> Part | None:
    file = need(part, "file", fields.mapping, path)
    path = f"{path}.file"
    title = maybe(file, "filename", fields.string, path) or ""
    if file_id := maybe(file, "file_id", fields.string, path):
        return Document(file_id=file_id, title=title, cache=cache, path=path)
    data, media_type = need(file, "file_data", fields.string, path), "application/pdf"
    if data.startswith("data:"):
        media_type, data = data_url(data, f"{path}.file_data")
    if media_type != "text/plain":
        return Document(data, media_type, title=title, cache=cache, path=path)
    try:
        text = b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        where = f"{path}.file_data"
        raise InvalidRequest(f"'{where}' must be UTF-8 text in base64.", param=where) from error
    return Document(text=text, media_type=media_type, title=title, cache=cache, path=path)


_PARTS: Mapping[str, Callable[[Fields, str, CacheMark | None], Part | None]] = {
    "text": _text,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
    "refusal": _refusal,
}

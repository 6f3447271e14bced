"""The messages of an Anthropic Messages request -> turns in canonical form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from gateway.conversation import (
    CacheMark,
    Citation,
    Document,
    Image,
    Opaque,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    merged,
)
from gateway.dialects import fields
from gateway.dialects.blocks import read_cache
from gateway.dialects.fields import maybe, need
from gateway.errors import InvalidRequest
from gateway.types import Format

Fields: TypeAlias = Mapping[str, Any]


def read_messages(messages: Sequence[Any]) -> tuple[tuple[Turn, ...], dict[str, Any]]:
    """Turns, and by path the message fields that have no place in them."""
    turns: list[Turn] = []
    extras: dict[str, Any] = {}
    for i, value in enumerate(messages):
        path = f"messages[{i}]"
        message = fields.mapping(value, path)
        role = Role(need(message, "role", _ROLE, path))
        turns.append(Turn(role, tuple(read_content(message.get("content"), f"{path}.content"))))
        for name in message.keys() - {"role", "content"}:
            extras[f"{path}.{name}"] = message[name]
    return merged(turns), extras


_ROLE = fields.one_of("user", "assistant", "system")


def read_system(value: object, path: str) -> tuple[Text, ...]:
    """The top-level system prompt."""
    texts = tuple(read_content(value, path))
    if not all(isinstance(text, Text) for text in texts):
        raise InvalidRequest(f"'{path}' may hold only text.", param=path)
    return texts  # type: ignore[return-value]  # all() does not narrow


def read_content(content: object, path: str) -> Iterator[Part]:
    """Text or blocks, without what is empty."""
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    for i, value in enumerate(fields.items(content, path)):
        where = f"{path}[{i}]"
        block = fields.mapping(value, where)
        kind = need(block, "type", fields.string, where)
        read = _BLOCKS.get(kind)
        part = read(block, where) if read is not None else None
        yield part or Opaque(Format.MESSAGES, kind, block, where)


def read_citation(citation: Fields) -> Citation:
    """Where a text comes from; the whole of it is kept as the source."""
    url, title = citation.get("url"), citation.get("title") or citation.get("document_title")
    return Citation(str(url or ""), str(title or ""), str(citation.get("cited_text") or ""), citation)


def _cache(block: Fields, path: str) -> CacheMark | None:
    return maybe(block, "cache_control", read_cache, path)


def _text(block: Fields, path: str) -> Part | None:
    citations = maybe(block, "citations", fields.items, path) or ()
    cited = tuple(read_citation(fields.mapping(citation, f"{path}.citations")) for citation in citations)
    return Text(need(block, "text", fields.string, path), cited, _cache(block, path))


def _image(block: Fields, path: str) -> Part | None:
    source, path = need(block, "source", fields.mapping, path), f"{path}.source"
    kind = need(source, "type", fields.one_of("base64", "url", "file"), path)
    cache = _cache(block, path)
    if kind == "url":
        return Image(url=need(source, "url", fields.string, path), cache=cache, path=path)
    if kind == "file":
        return Image(file_id=need(source, "file_id", fields.string, path), cache=cache, path=path)
    data, media_type = need(source, "data", fields.string, path), need(source, "media_type", fields.string, path)
    return Image(data=data, media_type=media_type, cache=cache, path=path)


def _document(block: Fields, path: str) -> Part | None:
    where = f"{path}.source"
    source = need(block, "source", fields.mapping, path)
    kind = need(source, "type", fields.string, where)
    if kind not in ("base64", "text", "url", "file"):
        return None
    name = {"base64": "data", "text": "data", "url": "url", "file": "file_id"}[kind]
    content = need(source, name, fields.string, where)
    citations = maybe(block, "citations", fields.mapping, path) or {}
    return Document(
        data=content if kind == "base64" else "",
        text=content if kind == "text" else "",
        url=content if kind == "url" else "",
        file_id=content if kind == "file" else "",
        media_type=maybe(source, "media_type", fields.string, where) or "",
        title=maybe(block, "title", fields.string, path) or "",
        context=maybe(block, "context", fields.string, path) or "",
        cite=maybe(citations, "enabled", fields.boolean, f"{path}.citations") or False,
        cache=_cache(block, path),
        path=path,
    )


def _tool_use(block: Fields, path: str) -> Part | None:
    caller = maybe(block, "caller", fields.mapping, path) or {}
    if caller.get("type", "direct") != "direct" or block.get("toolset_name") is not None:
        return None
    arguments = orjson.dumps(need(block, "input", fields.mapping, path)).decode()
    id_, name = need(block, "id", fields.string, path), need(block, "name", fields.string, path)
    return ToolCall(id_, name, arguments, _cache(block, path), f"{path}.input")


def _tool_result(block: Fields, path: str) -> Part | None:
    content = block.get("content")
    parts = tuple(read_content(content, f"{path}.content")) if content is not None else ()
    is_error = maybe(block, "is_error", fields.boolean, path) or False
    return ToolResult(need(block, "tool_use_id", fields.string, path), parts, is_error, _cache(block, path), path)


def _thinking(block: Fields, path: str) -> Part | None:
    return Reasoning(need(block, "thinking", fields.string, path), maybe(block, "signature", fields.string, path) or "")


def _redacted(block: Fields, path: str) -> Part | None:
    return Reasoning(encrypted=need(block, "data", fields.string, path))


_BLOCKS: Mapping[str, Callable[[Fields, str], Part | None]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}
"""A reader that returns None leaves the block to Anthropic's own format."""

"""Turns -> the system prompt and messages of a Converse request."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gateway.conversation import (
    Audio,
    CacheMark,
    Conversation,
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
)
from gateway.dialects import claude_asked
from gateway.dialects.blocks import parsed_arguments
from gateway.errors import InvalidRequest
from gateway.types import Format

IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
ID_CHARS_MAX = 64
NAME_CHARS_MAX = 200

_REFUSED_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_REFUSED_IN_NAME = re.compile(r"[^a-zA-Z0-9\s()\[\]-]+")

Block = dict[str, Any]


class Blocks:
    """Writes the parts of one conversation, as far as the model takes them: cache points, whether a tool failed, and
    thoughts that were signed.
    """

    def __init__(self, cannot: Callable[[str, str], None], *, caches: bool, judges: bool, remembers: bool) -> None:
        self._cannot = cannot
        self._caches, self._judges, self._remembers = caches, judges, remembers
        self._names: set[str] = set()  # of documents, which must differ

    def messages(self, c: Conversation) -> tuple[list[Block], list[Block]]:
        """The system prompt and the messages; later system text joins the prompt, a prompt alone is the user's turn."""
        system = list(self.blocks(c.system))
        out: list[Block] = []
        for turn in c.turns:
            written = list(self.blocks(turn.parts))
            if turn.role is Role.SYSTEM:
                system += written
            elif written and out and out[-1]["role"] == turn.role:
                out[-1]["content"] += written
            elif written:
                out.append({"role": str(turn.role), "content": written})
        if not out and system:
            return [], [{"role": "user", "content": system}]
        if out:
            out[-1]["content"] += self.cache_point(c.cache)
        return system, out

    def cache_point(self, cache: CacheMark | None) -> list[Block]:
        """The block that marks the prompt up to here; none where the model does not cache."""
        if cache is None or not self._caches:
            return []
        return [{"cachePoint": {"type": "default", **({"ttl": "1h"} if cache.minutes > 5 else {})}}]

    def blocks(self, parts: Iterable[Part]) -> Iterator[Block]:
        """What says these parts, and their cache points."""
        for part in parts:
            if (block := self._block(part)) is not None:
                yield block
                yield from self.cache_point(getattr(part, "cache", None))

    def _block(self, part: Part) -> Block | None:
        match part:
            case Text(text) | Refusal(text):
                return {"text": text} if text else None
            case ToolCall():
                return self._tool_use(part)
            case ToolResult():
                return self._tool_result(part)
            case Image():
                return self._image(part)
            case Document():
                return self._document(part)
            case Audio(data, format=kind):
                return {"audio": {"format": kind, "source": {"bytes": data}}}
            case Reasoning():
                return _thought(part) if self._remembers and claude_asked.is_thought(part) else None
            case Opaque(format=Format.CONVERSE):
                return dict(part.value)
            case _:
                self._cannot(part.path, f"a part of type {part.type}")
                return None

    def _tool_use(self, call: ToolCall) -> Block:
        arguments = parsed_arguments(call.arguments)
        if arguments is None:
            raise InvalidRequest(f"'{call.path}' must be a JSON object.", param=call.path)
        return {"toolUse": {"toolUseId": _id(call.id), "name": call.name, "input": arguments}}

    def _tool_result(self, result: ToolResult) -> Block:
        content = [block for part in result.parts if (block := self._block(part)) is not None]
        failed = {"status": "error"} if result.is_error and self._judges else {}
        if result.is_error and not self._judges:
            content.insert(0, {"text": "Error:"})
        return {"toolResult": {"toolUseId": _id(result.id), "content": content, **failed}}

    def _image(self, image: Image) -> Block | None:
        if image.url.startswith("s3://"):
            kind = image.url.rpartition(".")[2].lower()
            source: Block = {"s3Location": {"uri": image.url}}
        else:
            kind, source = IMAGE_FORMATS.get(image.media_type, ""), {"bytes": image.data}
        kind = "jpeg" if kind == "jpg" else kind
        if kind not in IMAGE_FORMATS.values():
            why = "it must come with its data" if image.url or image.file_id else f"it is {image.media_type}"
            self._cannot(image.path, why)
            return None
        return {"image": {"format": kind, "source": source}}

    def _document(self, document: Document) -> Block | None:
        data = document.data or b64encode(document.text.encode()).decode()
        kind = "txt" if document.text else DOCUMENT_FORMATS.get(document.media_type, "")
        if not data or not kind:
            elsewhere = document.url or document.file_id
            self._cannot(document.path, "it must come with its data" if elsewhere else f"it is {document.media_type}")
            return None
        block: Block = {"format": kind, "name": self._name(document.title), "source": {"bytes": data}}
        if document.context:
            block["context"] = document.context
        if document.cite:
            block["citations"] = {"enabled": True}
        return {"document": block}

    def _name(self, title: str) -> str:
        """A name as Amazon takes it, of letters, digits and single blanks, that no other document has."""
        plain = " ".join(_REFUSED_IN_NAME.sub(" ", title).split())[: NAME_CHARS_MAX - 5] or "document"
        name, n = plain, 1
        while name in self._names:
            n += 1
            name = f"{plain} {n}"
        self._names.add(name)
        return name


def _thought(thought: Reasoning) -> Block:
    if thought.encrypted:
        return {"reasoningContent": {"redactedContent": thought.encrypted}}
    return {"reasoningContent": {"reasoningText": {"text": thought.text, "signature": thought.signature}}}


def _id(id_: str) -> str:
    """A tool call's id as Amazon takes it; the same for the same."""
    if len(id_) > ID_CHARS_MAX:
        return hashlib.sha256(id_.encode()).hexdigest()
    return _REFUSED_IN_ID.sub("_", id_)

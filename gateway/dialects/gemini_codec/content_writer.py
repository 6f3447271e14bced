"""Turns -> Gemini's contents.

Said in another way: system text within the conversation joins the system prompt; a system prompt alone is the user's
turn; a refusal of the assistant is text; a plain text document is text; where a model's tool results hold only JSON,
images and files follow beside the result.
Left out without a word: thoughts that no Gemini signed, an image's `detail`, cache marks (Gemini caches by itself), a
document's title.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from gateway.conversation import (
    Audio,
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
    Turn,
)
from gateway.dialects import gemini_models, vertex
from gateway.dialects.blocks import parsed_arguments
from gateway.dialects.codec import Refuser
from gateway.dialects.signatures import unsealed
from gateway.errors import InvalidRequest
from gateway.plan import Step
from gateway.types import Format

UNSIGNED = "skip_thought_signature_validator"
"""Stands for the signature of a tool call that no Gemini made, or whose client lost it; documented by Google."""

_TYPES: Mapping[str, str] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/md",
    "csv": "text/csv",
    "html": "text/html",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "mp4": "video/mp4",
}
_OWN_FILES = ("https://generativelanguage.googleapis.com/", "gs://", "files/")


class ContentWriter:
    """Writes the turns of one conversation for one step."""

    def __init__(self, conversation: Conversation, step: Step, refuser: Refuser) -> None:
        self.conversation = conversation
        self.model = step.deployment.upstream_model
        self.cannot = refuser.cannot
        self._names_calls = not vertex.is_vertex(step.deployment.provider)
        self._calls: dict[str, tuple[int, str]] = {}  # id -> its place among all calls, and the tool's name

    def written(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The parts of the system prompt, and the contents.  Raises InvalidRequest where there is nothing to answer."""
        system = [*self.parts(self.conversation.system)]
        contents: list[dict[str, Any]] = []
        for turn in self.conversation.turns:
            if turn.role is Role.SYSTEM:
                system += self.parts(turn.parts)
                continue
            said = list(self.assistant(turn) if turn.role is Role.ASSISTANT else self.user(turn))
            role = "model" if turn.role is Role.ASSISTANT else "user"
            if said and contents and contents[-1]["role"] == role:
                contents[-1]["parts"] += said
            elif said:
                contents.append({"role": role, "parts": said})
        if not contents and system:
            return [], [{"role": "user", "parts": system}]
        if not contents:
            raise InvalidRequest("'messages' holds nothing to answer.", param="messages")
        return system, contents

    def user(self, turn: Turn) -> Iterator[dict[str, Any]]:
        """Results first, in the order of their calls: Gemini knows them by it."""
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        others = [part for part in turn.parts if not isinstance(part, ToolResult)]
        beside: list[dict[str, Any]] = []
        for result in sorted(results, key=lambda result: self._calls.get(result.id, (len(self._calls), ""))[0]):
            yield self.result(result, beside)
        yield from beside
        yield from self.parts(others)

    def assistant(self, turn: Turn) -> Iterator[dict[str, Any]]:
        """What was said, each part with the signature that Gemini gave it."""
        signatures: dict[str, str] = {}
        for part in turn.parts:
            if isinstance(part, Reasoning) and (found := unsealed(part.signature or part.encrypted)):
                place, signature = found
                signatures[place] = signature
                if part.text:
                    own = {"thoughtSignature": signatures.pop("r")} if place == "r" else {}
                    yield {"text": part.text, "thought": True, **own}
        said = [part for part in turn.parts if not isinstance(part, Reasoning | ToolCall)]
        texts = list(self.parts(said))
        if "t" in signatures:
            if not texts or "text" not in texts[-1]:
                texts.append({"text": ""})
            texts[-1]["thoughtSignature"] = signatures["t"]
        yield from texts
        yield from self.calls([part for part in turn.parts if isinstance(part, ToolCall)], signatures)

    def calls(self, calls: list[ToolCall], signatures: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Of calls in parallel the first must be signed."""
        for at, call in enumerate(calls):
            written = self.call(call)
            if own := signatures.get(f"c{at}"):
                written["thoughtSignature"] = own
            elif at == 0 and gemini_models.signs_calls(self.model):
                written["thoughtSignature"] = UNSIGNED
            yield written

    def call(self, call: ToolCall) -> dict[str, Any]:
        """A call, remembered for its result, which must name the tool."""
        arguments = parsed_arguments(call.arguments)
        if arguments is None:
            raise InvalidRequest(f"'{call.path}' must be a JSON object.", param=call.path)
        self._calls[call.id] = (len(self._calls), call.name)
        return {"functionCall": {**self.identity(call.id), "name": call.name, "args": arguments}}

    def result(self, result: ToolResult, beside: list[dict[str, Any]]) -> dict[str, Any]:
        """A tool's result; `beside` takes what cannot stand in it."""
        text = "".join(part.text for part in result.parts if isinstance(part, Text))
        media = list(self.parts(part for part in result.parts if not isinstance(part, Text)))
        response = None if result.is_error else _object(text)
        name = self._calls.get(result.id, (0, ""))[1]
        if not name:
            raise InvalidRequest(f"'{result.path}' answers no tool call of this conversation.", param=result.path)
        written: dict[str, Any] = {
            **self.identity(result.id),
            "name": name,
            "response": {"error" if result.is_error else "result": text} if response is None else response,
        }
        if media and gemini_models.takes_media_in_results(self.model):
            written["parts"] = media
        elif media:
            beside += [{"text": f"From the result of {name}:"}, *media]
        return {"functionResponse": written}

    def identity(self, id_: str) -> dict[str, str]:
        """Google's cloud knows calls by their order alone."""
        return {"id": id_} if self._names_calls else {}

    def parts(self, parts: Iterable[Part]) -> Iterator[dict[str, Any]]:
        """Each part as Gemini knows it."""
        for part in parts:
            if (written := self.part(part)) is not None:
                yield written

    def part(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text(text) | Refusal(text):
                return {"text": text} if text else None
            case Image():
                return self.image(part)
            case Audio(data, format_):
                return _inline(f"audio/{format_}", data)
            case Document():
                return self.document(part)
            case Opaque(format=Format.GEMINI):
                return dict(part.value)
            case _:
                self.cannot(getattr(part, "path", "messages"), f"a part of type {getattr(part, 'type', '')}")
                return None

    def image(self, image: Image) -> dict[str, Any] | None:
        if image.data:
            return _inline(image.media_type, image.data)
        return self.file(image.url, image.file_id, image.path, "image/jpeg")

    def document(self, document: Document) -> dict[str, Any] | None:
        if document.cite:
            self.cannot(f"{document.path}.citations")
        if document.context:
            self.cannot(f"{document.path}.context")
        if document.text:
            return {"text": document.text}
        if document.data:
            return _inline(document.media_type, document.data)
        return self.file(document.url, document.file_id, document.path, document.media_type or "application/pdf")

    def file(self, url: str, file_id: str, path: str, otherwise: str) -> dict[str, Any] | None:
        """A file by its address; its type is told by its name, else `otherwise`."""
        if file_id and not file_id.startswith(_OWN_FILES):
            self.cannot(path, "the file is another provider's")
            return None
        address = url or file_id
        ending = urlsplit(address).path.rpartition(".")[2].lower()
        return {"fileData": {"mimeType": _TYPES.get(ending, otherwise), "fileUri": address}}


def _inline(media_type: str, data: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _object(text: str) -> Mapping[str, Any] | None:
    """The object that a result is; Gemini takes no other JSON."""
    return parsed_arguments(text) if text.lstrip()[:1] == "{" else None

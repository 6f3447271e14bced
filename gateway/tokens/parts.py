"""The parts of a message's content, in both client formats.  A kind of part is one function in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import orjson
from msgspec import Struct, field

from gateway.tokens import images
from gateway.tokens.images import Image
from gateway.tokens.tools import as_answer
from gateway.types import Capability

Json: TypeAlias = Any
"""Whatever a client sent: nothing may be assumed of it."""
Object: TypeAlias = dict[str, Json]
Body: TypeAlias = Mapping[str, Json]
T = TypeVar("T")


PROVIDER_CALLS = 10
"""Of each tool of the provider's own, where the request sets no limit; nobody documents one."""


class Facts(Struct):
    """What a request holds.  `audio` and `files` are lengths of base64 text."""

    texts: list[str] = field(default_factory=list)
    messages: int = 0
    system: bool = False
    names: int = 0
    calls: int = 0
    parallel: int = 0  # messages with more than one call
    images: list[Image] = field(default_factory=list)
    audio: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    opaque: bool = False  # holds what only the provider can see: a link to a file, a search it will make
    tools: list[Object] = field(default_factory=list)
    provider_tools: int = 0
    provider_calls: int = 0  # of those, at most
    forced: bool = False  # a tool must be called
    named: bool = False  # ... and this one
    idle: bool = False  # no tool may be called
    cited: bool = False  # a document is to be cited
    tools_raw: bytes = b""  # the same as JSON
    schema: str = ""  # the output schema as a model is shown it
    needs: set[Capability] = field(default_factory=set)
    thinking: bool = False
    output_requested: int | None = None  # 0: nothing that is counted in tokens comes out
    choices: int = 1
    tokens: int = 0  # of what came as tokens already
    thoughts: list[str] = field(default_factory=list)  # of the model, since the user last said something
    old_thoughts: list[str] = field(default_factory=list)  # from before
    sealed: int = 0  # characters of thoughts that only the provider can read
    pieces: dict[str, int] = field(default_factory=dict)  # at most: images, seconds of sound, characters ...


class Misfit(Exception):
    """Something of the wrong shape at `path`, relative to whoever catches it."""

    def __init__(self, path: str, expected: str) -> None:
        super().__init__(path)
        self.path = path
        self.expected = expected


PartReader: TypeAlias = Callable[[Object, Facts], None]


def read_content(content: Json, facts: Facts, readers: Mapping[str, PartReader], path: str) -> None:
    """A message's content: a string, or a list of parts."""
    if type(content) is str:
        facts.texts.append(content)
        return
    if type(content) is not list:
        raise Misfit(path, "a string or a list of parts")
    for j, part in enumerate(content):
        try:
            _read_part(part, facts, readers)
        except Misfit as misfit:
            raise Misfit(f"{path}[{j}]{misfit.path}", misfit.expected) from None


def _read_part(part: Json, facts: Facts, readers: Mapping[str, PartReader]) -> None:
    if type(part) is not dict:
        raise Misfit("", "an object with a type")
    kind = part.get("type")
    if type(kind) is not str:
        raise Misfit(".type", "a string")
    readers.get(kind, _unknown_part)(part, facts)


def read_text(part: Object, facts: Facts) -> None:
    text = part.get("text")
    if type(text) is not str:
        raise Misfit(".text", "a string")
    facts.texts.append(text)


def _refusal_part(part: Object, facts: Facts) -> None:
    facts.texts.append(optional(part, "refusal", str, ".") or "")


def _image_url_part(part: Object, facts: Facts) -> None:
    image = part.get("image_url")
    if type(image) is str:
        facts.images.append(images.from_url(image))
        return
    if type(image) is not dict or type(url := image.get("url")) is not str:
        raise Misfit(".image_url.url", "a string")
    facts.images.append(images.from_url(url, optional(image, "detail", str, ".image_url.") or "auto"))


def _audio_part(part: Object, facts: Facts) -> None:
    audio = part.get("input_audio")
    data = audio.get("data") if type(audio) is dict else audio
    if type(data) is not str:
        raise Misfit(".input_audio.data", "a string")
    facts.audio.append(len(data))
    facts.opaque = facts.opaque or data.startswith("http")


def _file_part(part: Object, facts: Facts) -> None:
    file = part.get("file")
    if type(file) is not dict:
        raise Misfit(".file", "an object")
    data = optional(file, "file_data", str, ".file.")
    count_file(data, facts)


def _linked_part(part: Object, facts: Facts) -> None:
    link = next((part[key] for key in ("document_url", "file_url", "video_url") if key in part), None)
    url = link.get("url") if type(link) is dict else link
    count_file(url if type(url) is str and url[:5] == "data:" else None, facts)


def count_file(data: str | None, facts: Facts) -> None:
    """A file by its base64 text; None: only the provider has it."""
    facts.files.append(len(data) if data else 0)
    if data is None or data.startswith("http"):
        facts.opaque = True


def _unknown_part(part: Object, facts: Facts) -> None:
    facts.texts.append(compact(part))


def _anthropic_image(part: Object, facts: Facts) -> None:
    source = _source(part)
    data = optional(source, "data", str, ".source.")
    facts.images.append(Image() if data is None else images.from_base64(data))


def _document(part: Object, facts: Facts) -> None:
    source = _source(part)
    citations = part.get("citations")
    facts.cited = facts.cited or (type(citations) is dict and citations.get("enabled") is True)
    for key in ("title", "context"):
        facts.texts.append(optional(part, key, str, ".") or "")
    match source.get("type"):
        case "text":
            facts.texts.append(optional(source, "data", str, ".source.") or "")
        case "content":
            read_content(source.get("content"), facts, ANTHROPIC_PARTS, ".source.content")
        case _:
            count_file(optional(source, "data", str, ".source."), facts)


def _source(part: Object) -> Object:
    source = part.get("source")
    if type(source) is not dict:
        raise Misfit(".source", "an object")
    return source


def _tool_use(part: Object, facts: Facts) -> None:
    facts.calls += 1
    facts.texts.append(optional(part, "name", str, ".") or "")
    facts.texts.append(compact(part.get("input")))


def _tool_result(part: Object, facts: Facts) -> None:
    content = part.get("content")
    if content is None:
        return
    if type(content) is dict:
        facts.texts.append(compact(content))
    else:
        read_content(content, facts, ANTHROPIC_PARTS, ".content")


def _provider_result(_part: Object, facts: Facts) -> None:
    """What a search found, encrypted: only the provider can count it."""
    facts.opaque = True


def thought(holder: Object, facts: Facts) -> None:
    """A thought in any vendor's words: open, or summed up and sealed.  Of the wrong shape it is none."""
    for name in ("thinking", "text", "summary"):
        if type(text := holder.get(name)) is str:
            facts.thoughts.append(text)
            break
    for name in ("signature", "data", "encrypted_content"):
        if type(seal := holder.get(name)) is str:
            facts.sealed += len(seal)


def user_spoke(facts: Facts) -> None:
    """What was thought before the user's last words is dropped by most providers, and kept by some."""
    facts.old_thoughts += facts.thoughts
    facts.thoughts = []


CHAT_PARTS: Final[Mapping[str, PartReader]] = {
    "text": read_text,
    "refusal": _refusal_part,
    "image_url": _image_url_part,
    "input_audio": _audio_part,
    "file": _file_part,
    "document_url": _linked_part,
    "file_url": _linked_part,
    "video_url": _linked_part,
}
ANTHROPIC_PARTS: Final[Mapping[str, PartReader]] = {
    "text": read_text,
    "image": _anthropic_image,
    "document": _document,
    "tool_use": _tool_use,
    "server_tool_use": _tool_use,
    "tool_result": _tool_result,
    "web_search_tool_result": _provider_result,
    "web_fetch_tool_result": _provider_result,
    "thinking": thought,
    "redacted_thinking": thought,
}


TOO_DEEP: Final = "JSON nested less than 250 deep"
_NAMES: Final[Mapping[type[Json], str]] = {dict: "an object", list: "a list", str: "a string"}


def most_calls(stated: Json) -> int:
    """How often the provider may call a tool of its own: as stated, or PROVIDER_CALLS."""
    return stated if type(stated) is int and stated >= 0 else PROVIDER_CALLS


def optional(holder: Mapping[str, Json], key: str, kind: type[T], prefix: str = "") -> T | None:
    """The value at `key`, None when absent or null.  Misfit: it is there and not a `kind`."""
    value = holder.get(key)
    if value is None or type(value) is kind:
        return value
    raise Misfit(prefix + key, _NAMES[kind])


def shown_schema(schema: Json, path: str) -> str:
    """The schema of an answer as a model is shown it."""
    try:
        return as_answer(schema)
    except TypeError:
        raise Misfit(path, TOO_DEEP) from None


def compact(value: Json) -> str:
    """The value as compact JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Misfit("", TOO_DEEP) from None

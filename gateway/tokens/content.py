"""What a request holds, counted once and for every family; and what that makes on one of them.  Pure."""

from __future__ import annotations

from math import ceil

from msgspec import Struct, field

from gateway.tokens.encodings import O200K
from gateway.tokens.families import Family, audio_tokens, file_tokens
from gateway.tokens.images import Image
from gateway.tokens.parts import Facts
from gateway.types import Capability, Format

SEALED_CHARS_TOKEN = 4
"""Of base64: no vendor packs a token of thought into less."""
CONTEXT_UNKNOWN = 200_000
"""Tokens assumed at most for what only the provider can see, on a deployment whose context is not known."""


class Guess(Struct, frozen=True):
    """Input tokens by the rules of one family."""

    tokens: float
    more: int  # at most, on top of that
    kind: tuple[bool, bool, bool, bool]  # whether it holds tools, a schema, thinking, media


class Content(Struct):
    """Facts of a request that hold on every deployment.  Read only, but for what is worked out when it is asked for.

    Text does not include tools and schema.
    """

    format: Format
    text: dict[str, int]  # tokens, by encoding
    messages: int
    system: bool
    calls: int
    parallel: int
    images: list[Image]
    audio: list[int]  # bytes of base64 text, each
    files: list[int]  # the same
    opaque: bool  # holds what only the provider can see: links to files, its own search
    tools: int
    tools_json: int  # tokens
    tools_namespace: int  # tokens
    forced: bool
    named: bool
    idle: bool  # no tool may be called
    provider_tools: int
    provider_calls: int  # of those, at most
    cited: bool
    schema: int  # tokens
    thinking: bool
    thoughts: int  # tokens, since the user last said something
    old_thoughts: int  # from before
    sealed: int  # characters
    capabilities: frozenset[Capability]
    output_requested: int | None  # tokens per answer; None: the client did not say
    choices: int
    bytes: int  # of the body
    pieces: dict[str, int]  # at most, of what may be billed by the piece
    guesses: dict[tuple[str, bool], Guess] = field(default_factory=dict)  # by family and thinking
    prefixes: list[tuple[int, int]] | None = None  # see gateway.habits


def counted(
    facts: Facts,
    format: Format,  # noqa: A002  # the noun of gateway.types
    size: int,
    text: dict[str, int],
    tools: tuple[int, int],
    schema: int,
    thoughts: tuple[int, int] = (0, 0),
) -> Content:
    """What was read and what was counted of it, together."""
    return Content(
        format=format,
        text=text,
        messages=facts.messages,
        system=facts.system,
        calls=facts.calls,
        parallel=facts.parallel,
        images=facts.images,
        audio=facts.audio,
        files=facts.files,
        opaque=facts.opaque,
        tools=len(facts.tools),
        tools_json=tools[0],
        tools_namespace=tools[1],
        forced=facts.forced,
        named=facts.named,
        idle=facts.idle,
        provider_tools=facts.provider_tools,
        provider_calls=facts.provider_calls,
        cited=facts.cited,
        schema=schema,
        thinking=facts.thinking,
        thoughts=thoughts[0],
        old_thoughts=thoughts[1],
        sealed=facts.sealed,
        capabilities=frozenset(facts.needs),
        output_requested=facts.output_requested,
        choices=facts.choices,
        bytes=size,
        pieces=facts.pieces,
    )


def first_guess(family: Family, content: Content, thinking: bool) -> float:  # a fact, not a mode
    """Input tokens by the family's rules alone, without pictures, sound and files."""
    text = content.text.get(family.encoding)
    total = family.start + family.message * content.messages
    total += family.text * (content.text[O200K] if text is None else text)
    if not content.system:
        total += family.unsystem
    if shows_tools(family, content):
        total += _tools(family, content)
    if content.provider_tools or content.cited:
        total += family.provider_tool * content.provider_tools + (family.cited if content.cited else 0)
    if content.calls:
        total += family.call * content.calls + family.parallel * content.parallel
    if content.schema:
        total += family.schema_start + family.schema * content.schema
    total += family.thoughts * family.text * content.thoughts
    return total + family.thinking if thinking else total


def guessed(family: Family, content: Content, thinking: bool) -> Guess:  # a fact, not a mode
    """What the family's rules make of it all; worked out once."""
    known = content.guesses.get((family.name, thinking))
    if known is not None:
        return known
    tokens, more = first_guess(family, content, thinking), unsure(family, content)
    shown = has_media(content)
    if shown:
        likely, most = media(family, content)
        tokens, more = tokens + likely, most - likely + more
    kind = (shows_tools(family, content), content.schema > 0, thinking, shown)
    guess = content.guesses[family.name, thinking] = Guess(tokens, more, kind)
    return guess


def unsure(family: Family, content: Content) -> int:
    """What the model thought before and may be shown again beyond the first guess: tokens at most."""
    if not (content.thoughts or content.old_thoughts or content.sealed):
        return 0
    shown = ceil((1 - family.thoughts) * content.thoughts * family.text)
    return shown + ceil(content.old_thoughts * family.text) + content.sealed // SEALED_CHARS_TOKEN


def shows_tools(family: Family, content: Content) -> bool:
    """Whether the model is shown the request's tools."""
    return content.tools > 0 and (family.idle or not content.idle)


def _tools(family: Family, content: Content) -> float:
    tokens = content.tools_namespace if family.namespace else content.tools_json
    total = family.tools_start + family.tool * content.tools + family.tools * tokens
    if not content.system:
        total += family.tools_unsystem
    if content.forced:
        total += family.forced
    return total + family.named if content.named else total


def has_media(content: Content) -> bool:
    """Whether there are pictures, sounds or files."""
    return bool(content.images or content.audio or content.files)


def media(family: Family, content: Content) -> tuple[int, int]:
    """Tokens of the pictures, sounds and files: expected, and at most."""
    expected = bound = 0
    for image in content.images:
        likely, most = family.image(image)
        expected += likely
        bound += most
    for size in content.audio:
        likely, most = audio_tokens(family, size)
        expected += likely
        bound += most
    for size in content.files:
        likely, most = file_tokens(size)
        expected += likely
        bound += most
    return expected, bound


def ceiling(family: Family, content: Content) -> int:
    """What no request passes: a token is at least a byte of the body, plus what the family adds unseen."""
    added = family.start + family.unsystem + family.message * content.messages + family.slack + family.thinking
    if content.tools:
        added += family.tools_start + family.tools_unsystem + family.tool * content.tools
        added += max(0.0, family.forced) + family.named
    added += family.call * content.calls + family.parallel * content.parallel
    added += 2 * family.provider_tool * content.provider_tools + family.cited
    if content.schema:
        added += family.schema_start
    return content.bytes + ceil(added)

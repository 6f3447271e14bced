"""What a request holds, counted once and for every family; and what that makes on one of them.  Pure."""

from __future__ import annotations

from math import ceil

from msgspec import Struct, field

from gateway.tokens.encodings import O200K
from gateway.tokens.families import Family, audio_tokens, file_tokens
from gateway.tokens.parts import Facts

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
    """What a request holds, on whatever deployment, and how many tokens that is: the text without tools and schema.

    Read only, but for what is worked out when it is asked for.
    """

    facts: Facts
    bytes: int  # of the body
    text: dict[str, int]  # tokens, by encoding
    tools_json: int = 0  # tokens
    tools_namespace: int = 0  # tokens
    schema: int = 0  # tokens
    thoughts: int = 0  # tokens, since the user last said something
    old_thoughts: int = 0  # from before
    guesses: dict[tuple[str, bool], Guess] = field(default_factory=dict)  # by family and thinking
    prefixes: list[tuple[int, int]] | None = None  # see gateway.habits


def first_guess(family: Family, content: Content, thinking: bool) -> float:  # a fact, not a mode
    """Input tokens by the family's rules alone, without pictures, sound and files."""
    facts, text = content.facts, content.text.get(family.encoding)
    total = family.start + family.message * facts.messages
    total += family.text * (content.text[O200K] if text is None else text)
    if not facts.system:
        total += family.unsystem
    if shows_tools(family, facts):
        total += _tools(family, content)
    if facts.provider_tools or facts.cited:
        total += family.provider_tool * facts.provider_tools + (family.cited if facts.cited else 0)
    if facts.calls:
        total += family.call * facts.calls + family.parallel * facts.parallel
    if content.schema:
        total += family.schema_start + family.schema * content.schema
    total += family.thoughts * family.text * content.thoughts
    return total + family.thinking if thinking else total


def guessed(family: Family, content: Content, thinking: bool) -> Guess:  # a fact, not a mode
    """What the family's rules make of it all; worked out once."""
    known = content.guesses.get((family.name, thinking))
    if known is not None:
        return known
    facts = content.facts
    tokens, more = first_guess(family, content, thinking), unsure(family, content)
    shown = bool(facts.images or facts.audio or facts.files)
    if shown:
        likely, most = media(family, facts)
        tokens, more = tokens + likely, most - likely + more
    kind = (shows_tools(family, facts), content.schema > 0, thinking, shown)
    guess = content.guesses[family.name, thinking] = Guess(tokens, more, kind)
    return guess


def unsure(family: Family, content: Content) -> int:
    """What the model thought before and may be shown again beyond the first guess: tokens at most."""
    sealed = content.facts.sealed
    if not (content.thoughts or content.old_thoughts or sealed):
        return 0
    shown = ceil((1 - family.thoughts) * content.thoughts * family.text)
    return shown + ceil(content.old_thoughts * family.text) + sealed // SEALED_CHARS_TOKEN


def shows_tools(family: Family, facts: Facts) -> bool:
    """Whether the model is shown the request's tools."""
    return bool(facts.tools) and (family.idle or not facts.idle)


def _tools(family: Family, content: Content) -> float:
    facts = content.facts
    tokens = content.tools_namespace if family.namespace else content.tools_json
    total = family.tools_start + family.tool * len(facts.tools) + family.tools * tokens
    if not facts.system:
        total += family.tools_unsystem
    if facts.forced:
        total += family.forced
    return total + family.named if facts.named else total


def media(family: Family, facts: Facts) -> tuple[int, int]:
    """Tokens of the pictures, sounds and files: expected, and at most."""
    expected = bound = 0
    for image in facts.images:
        likely, most = family.image(image)
        expected += likely
        bound += most
    for size in facts.audio:
        likely, most = audio_tokens(family, size)
        expected += likely
        bound += most
    for size in facts.files:
        likely, most = file_tokens(size)
        expected += likely
        bound += most
    return expected, bound


def ceiling(family: Family, content: Content) -> int:
    """What no request passes: a token is at least a byte of the body, plus what the family adds unseen."""
    facts = content.facts
    added = family.start + family.unsystem + family.message * facts.messages + family.slack + family.thinking
    if facts.tools:
        added += family.tools_start + family.tools_unsystem + family.tool * len(facts.tools)
        added += max(0.0, family.forced) + family.named
    added += family.call * facts.calls + family.parallel * facts.parallel
    added += 2 * family.provider_tool * facts.provider_tools + family.cited
    if content.schema:
        added += family.schema_start
    return content.bytes + ceil(added)

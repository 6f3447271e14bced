"""What of a prompt is read: a window of its text, as terms and as shape.  Pure; standard library only.

Training and serving read with the same functions, so they cannot drift apart.  Of a prompt that may not be kept a
`Reading` may: its words as numbers that a secret makes and that many words share, without order, and its shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from math import log1p
from string import ascii_uppercase, digits
from typing import Any, TypeAlias

HEAD_CHARS = 250
TAIL_CHARS = 650
"""Of a long prompt the start (what it is) and the end (what is asked) are read; both bound the time it takes."""
FOLLOW_UP_CHARS = 24
"""A last message shorter than this ("continue", "why?") is read together with the one before."""

_WORD = re.compile(r"\w+")
_OPTION = re.compile(r"^\(?[A-J][.):]\s(.*)", re.MULTILINE)
_NEGATION = re.compile(r"\b(?:NOT|EXCEPT|LEAST|FALSE)\b")
_DIGITS = digits.encode()
_CAPITALS = ascii_uppercase.encode()
_SYMBOLS = b"+-*/=^<>\\${}[]()_|"

SHAPE = (
    "log length",
    "log words",
    "log lines",
    "digits",
    "capitals",
    "symbols",
    "word length",
    "options",
    "blank to fill",
    "negation",
    "ends with a question",
    "of the above",
    "code",
    "log length of an option",
    "log spread of option lengths",
    "log length without options",
    "digits in options",
)
"""What `shape` measures, in order."""


BUCKETS = 1024
"""Numbers that stand for words in a reading: of the words of a language a hundred share each, and it costs nothing
(docs/policies.md has the figures)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is kept of a text in its place: distinct numbers of its words, in their order, and its shape."""

    words: tuple[int, ...]
    shape: tuple[float, ...]
    length: int  # characters

    def __len__(self) -> int:
        return self.length


Prompt: TypeAlias = str | Reading
"""A text, or what was kept of one."""
Read: TypeAlias = tuple[Sequence[str], Sequence[str], tuple[float, ...]]
"""Words, terms and shape."""


def read(prompt: Prompt, salt: str = "") -> Read:
    """What a model is told of a prompt; with a `salt`, of a text only what a reading of it would tell."""
    if isinstance(prompt, Reading):
        known = [f"#{number}" for number in prompt.words]
        return known, known, prompt.shape
    if salt:
        return read(kept(prompt, salt))
    part = window(prompt)
    found = words(part)
    return found, terms(found), shape(part, len(prompt), found)


def kept(text: str, salt: str) -> Reading:
    """The reading of a text.  Who does not know the salt cannot look words up in it."""
    part = window(text)
    found = words(part)
    form = tuple(round(value, 4) for value in shape(part, len(text), found))
    return Reading(tuple(sorted({_number(word, salt) for word in found})), form, len(text))


def kept_of(body: Mapping[str, Any], salt: str) -> tuple[tuple[int, ...], tuple[float, ...], int] | None:
    """Words, shape and length of what a request asks, as it may be kept; None where there is no text."""
    text = asked(body)
    reading = kept(text, salt) if text else None
    return None if reading is None else (reading.words, reading.shape, reading.length)


@lru_cache(maxsize=65_536)
def _number(word: str, salt: str) -> int:
    digest = blake2b(word.encode(errors="replace"), key=salt.encode()[:64], digest_size=4).digest()
    return int.from_bytes(digest) % BUCKETS


def window(text: str) -> str:
    """The part of `text` that is read: all of it, or its head and its tail."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def words(text: str) -> list[str]:
    """The words of `text`, lower case, in order."""
    return _WORD.findall(text.lower())


def terms(found: list[str]) -> list[str]:
    """Words and pairs of neighbours."""
    return [*found, *map(" ".join, pairwise(found))]


def shape(text: str, length: int, found: list[str]) -> tuple[float, ...]:
    """The form of a window whose whole text has `length` characters: one number for each name in `SHAPE`."""
    size = len(text) or 1
    data = text.encode(errors="replace")
    letters = sum(map(len, found))
    options = _OPTION.findall(text)
    lengths = [*map(len, options)] or [0]
    return (
        log1p(length),
        log1p(len(found)),
        log1p(text.count("\n")),
        _count(data, _DIGITS) / size,
        _count(data, _CAPITALS) / size,
        _count(data, _SYMBOLS) / size,
        letters / (len(found) or 1),
        float(len(options)),
        float("__" in text),
        float(_NEGATION.search(text) is not None),
        float(text.rstrip().endswith("?")),
        float("of the above" in text),
        float("```" in text or "def " in text or "return " in text),
        log1p(sum(lengths) / len(lengths)),
        log1p(max(lengths) - min(lengths)),
        log1p(max(length - sum(lengths), 0)),
        _count("".join(options).encode(errors="replace"), _DIGITS) / (sum(lengths) or 1),
    )


def _count(data: bytes, wanted: bytes) -> int:
    return len(data) - len(data.translate(None, wanted))


def asked(body: Mapping[str, Any]) -> str:
    """What a chat or messages request asks: the text of its last user message, with the one before if it is short.

    Messages that carry only tool results, images or files have no text and are passed over.
    """
    last = ""
    for message in reversed(body.get("messages") or ()):
        if not isinstance(message, Mapping) or message.get("role") != "user":
            continue
        text = _text(message.get("content"))
        if not text:
            continue
        if last:
            return f"{text}\n{last}"
        if len(text) >= FOLLOW_UP_CHARS:
            return text
        last = text
    return last


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Iterable):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text")
    return "\n".join(part for part in parts if isinstance(part, str))


def plain_name(model: str) -> str:
    """A model's name without its vendor's path, in lower case: what is compared."""
    return model.rsplit("/", 1)[-1].lower()

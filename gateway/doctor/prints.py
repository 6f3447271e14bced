"""Fingerprints of prompts: what two of them have in common can be told from hashes, and nothing of them be read back.

A prompt is a row of blocks: its tools, its instructions, its turns.  The text at its head is cut into pieces of some
words, at ends of lines and sentences, and each piece is hashed as it is and again with what often changes masked, one
kind of thing after another.  Where two prompts differ as they are and agree under a mask, it is that kind of thing that
differs.  Pure; Python salts its hashes anew in each process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.habits import imprint

HEAD_CHARS = 12_288
"""Of a prompt that are looked at piece by piece; the blocks after them are hashed whole."""
BLOCKS_MAX = 512
PIECE_WORDS = 8  # at least, in a piece that ends with a line or a sentence
PIECE_WORDS_MAX = 32
PIECE_MASKED_CHARS = 4096
"""A longer piece is data and not prose: nothing is looked for in it."""

TOOLS, SYSTEM = "tools", "system"
HEAD = frozenset({TOOLS, SYSTEM})
"""Roles of blocks that requests of one kind should share."""

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?[ap]\.?m\b\.?)?(?: ?(?:z\b|utc\b|gmt\b|[+-]\d\d:?\d\d))?"
_DATE = (
    rf"(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}|(?:{_WEEKDAY}|[a-z]{{3}}), "
    rf"\d{{1,2}} {_MONTH} \d{{4}}|\d{{1,2}}(?:st|nd|rd|th)? {_MONTH},? \d{{4}}"
    rf"|(?:{_WEEKDAY},? )?{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?)"
)
MASKS: Mapping[str, re.Pattern[str]] = {
    "timestamp": re.compile(
        rf"(?:\b{_DATE}(?:t|,? (?:at )?)?)?\b{_CLOCK}|\b1[4-9]\d{{8}}(?:\d{{3}}|\.\d+)?\b", re.IGNORECASE
    ),
    "date": re.compile(rf"\b{_DATE}\b|\b{_WEEKDAY}\b", re.IGNORECASE),
    "id": re.compile(
        r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|\b[0-9a-f]{12,}\b|\b[0-9A-HJKMNP-TV-Z]{26}\b"
        r"|\b[a-z]{1,12}[_-](?=[a-z]*\d)[a-z0-9]{6,}\b",
        re.IGNORECASE,
    ),
    "number": re.compile(r"\d+(?:[.,]\d+)*"),
}
"""What is masked, by name and in this order: each mask is laid over those before it."""
EXACT, SORTED = "exact", "reordered_tools"
RUNGS = (EXACT, SORTED, *MASKS)
"""Ways to hash a piece: as it is; tools in an order of our own; then under one mask more each."""

_MASKABLE = re.compile(r"\d|day\b", re.IGNORECASE)
_ENDS = re.compile(r"(?<=[.!?])\s|\n")


@dataclass(frozen=True, slots=True)
class Block:
    """Tools, instructions or one turn.  `rungs`: hashes of its pieces for each of RUNGS; none beyond the head."""

    role: str
    chars: int
    whole: int  # hash of all of it
    rungs: tuple[tuple[int, ...], ...] = ()
    sizes: tuple[tuple[int, ...], ...] = ()  # characters of the pieces: as they are, and with tools sorted

    def sized(self, rung: int) -> tuple[int, ...]:
        """Characters of the pieces on that rung."""
        return self.sizes[min(rung, 1)]


@dataclass(frozen=True, slots=True)
class Print:
    """One prompt."""

    blocks: tuple[Block, ...]
    chars: int

    def pieces(self) -> dict[int, int]:
        """Characters of each piece of the head under all masks."""
        last = len(RUNGS) - 1
        return {
            piece: size
            for block in self.blocks
            if block.rungs
            for piece, size in zip(block.rungs[last], block.sized(last), strict=True)
        }


def printed(body: Mapping[str, Any]) -> Print:
    """The fingerprint of a request's body in any format a client speaks."""
    left, blocks = HEAD_CHARS, []
    for role, texts, ordered in _parts(body):
        blocks.append(_block(role, texts, ordered, left))
        left -= blocks[-1].chars
        if len(blocks) >= BLOCKS_MAX:
            break
    return Print(tuple(blocks), sum(block.chars for block in blocks))


def _parts(body: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Role, texts as they are sent, and in an order of our own."""
    tools = body.get("tools")
    if isinstance(tools, list) and tools:
        sent = [_json(tool, 0) for tool in tools]
        yield TOOLS, sent, sorted(_json(tool, orjson.OPT_SORT_KEYS) for tool in tools)
    for name in ("system", "instructions"):
        if body.get(name):
            texts = list(_texts(body[name]))
            yield SYSTEM, texts, texts
    turns = body.get("messages") or body.get("input") or body.get("prompt")
    for turn in turns if isinstance(turns, list) else [turns] if turns else []:
        role = str(turn.get("role", "")) if isinstance(turn, Mapping) else "user"
        found = list(_texts(turn))
        yield SYSTEM if role == "developer" else role[:16], found, found


def _json(value: object, option: int) -> str:
    if isinstance(value, Mapping):
        value = {name: inner for name, inner in value.items() if name != "cache_control"}
    return orjson.dumps(value, option=option).decode()


def _texts(value: object) -> Iterator[str]:
    """What is text in it; what is not stands for itself as the number of its hash."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, Mapping):
        rest = {name: inner for name, inner in value.items() if name not in ("text", "content", "cache_control")}
        for name in ("text", "content"):
            if name in value:
                yield from _texts(value[name])
        if not rest.keys() <= {"role", "type"}:
            yield chr(0) + str(imprint(rest)[0])


def _block(role: str, texts: list[str], ordered: list[str], left: int) -> Block:
    chars = sum(len(text) for text in texts if not text.startswith(chr(0)))
    whole = hash(tuple(texts))
    if left <= 0:
        return Block(role, chars, whole)
    sent = list(_pieces(texts, left))
    own = sent if ordered is texts else list(_pieces(ordered, left))
    columns = list(zip(*(_masked(piece) for piece in own), strict=True)) or [()] * (len(MASKS) + 1)
    rungs = [tuple(map(hash, sent)), *columns]
    return Block(role, chars, whole, tuple(rungs), (tuple(map(len, sent)), tuple(map(len, own))))


def _masked(piece: str) -> tuple[int, ...]:
    """Its hash without a mask, and under each."""
    if len(piece) > PIECE_MASKED_CHARS or _MASKABLE.search(piece) is None or piece.startswith(chr(0)):
        return (hash(piece),) * (len(MASKS) + 1)
    found = [hash(piece)]
    for name, mask in MASKS.items():
        piece = mask.sub(f"<{name}>", piece)  # each mask is laid over those before it
        found.append(hash(piece))
    return tuple(found)


def _pieces(texts: Iterable[str], left: int) -> Iterator[str]:
    """The texts in pieces whose bounds do not depend on how long a number or a name in them is."""
    for text in texts:
        if text.startswith(chr(0)):
            yield text
            continue
        start = 0
        shown = text[: max(left, 0)]
        left -= len(text)
        for end in _bounds(shown):
            yield shown[start:end]
            start = end
        if rest := text[start:]:
            yield rest


def _bounds(text: str) -> Iterator[int]:
    start = 0
    for found in _ENDS.finditer(text):
        end = found.end()
        words = text.count(" ", start, end) + 1
        if words > PIECE_WORDS_MAX:
            yield from _every(text, start, end)
        if words >= PIECE_WORDS:
            yield end
            start = end
    if text.count(" ", start) > PIECE_WORDS_MAX:
        yield from _every(text, start, len(text))


def _every(text: str, start: int, end: int) -> Iterator[int]:
    """Bounds inside a long stretch without an end of a sentence, so many words apart."""
    words = 0
    while (start := text.find(" ", start, end) + 1) > 0:
        words += 1
        if words % PIECE_WORDS_MAX == 0 and start < end:
            yield start

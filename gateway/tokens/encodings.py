"""OpenAI's byte-pair encodings from rank files shipped in `gateway/data`: offline, checked, loaded when first needed.

tiktoken itself would fetch the files, and deletes a cached one whose hash is wrong; here nothing is fetched and nothing
is written.  The files are gzip'd because they ship in every image: 2.5 MB instead of 5.3 for 20 ms at the first count.
Patterns, special tokens and hashes are those of tiktoken's `openai_public` (MIT), and a test holds them equal.
"""

from __future__ import annotations

import binascii
import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import tiktoken

O200K: Final = "o200k_base"
CL100K: Final = "cl100k_base"

DATA: Final = Path(__file__).parents[1] / "data"

PIECE_CHARS: Final = 8_000
"""Longest run handed to tiktoken at once: 2 ms at worst; one call with 1 MB of blanks panics inside tiktoken 0.14."""

_O200K_PATTERN = "|".join(  # noqa: FLY002  # one alternative a line, as published
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)


class DamagedRanks(RuntimeError):
    """A shipped rank file is missing or is not the published one: the installation is damaged."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One published encoding and the SHA-256 of its rank file."""

    name: str
    sha256: str
    pattern: str = field(repr=False)
    special: dict[str, int] = field(default_factory=dict)


ENCODINGS: Final = {
    O200K: Ranks(
        O200K,
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        _O200K_PATTERN,
        {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    CL100K: Ranks(
        CL100K,
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        _CL100K_PATTERN,
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
}


def build(ranks: Ranks, packed: bytes) -> tiktoken.Encoding:
    """The encoding of a gzip'd rank file.  Raises DamagedRanks unless it is byte for byte the published one."""
    try:
        plain = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        raise DamagedRanks(
            f"The rank file of {ranks.name} cannot be unpacked ({error}): reinstall tollgate."
        ) from error
    found = hashlib.sha256(plain).hexdigest()
    if found != ranks.sha256:
        raise DamagedRanks(
            f"The rank file of {ranks.name} has SHA-256 {found}, expected {ranks.sha256}: reinstall tollgate."
        )
    words = plain.split()
    mergeable = dict(zip(map(binascii.a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
    return tiktoken.Encoding(ranks.name, pat_str=ranks.pattern, mergeable_ranks=mergeable, special_tokens=ranks.special)


@cache
def load(name: str) -> tiktoken.Encoding:
    """The shipped encoding of that name, made once per process.  Raises DamagedRanks."""
    try:
        packed = (DATA / f"{name}.tiktoken.gz").read_bytes()
    except OSError as error:
        raise DamagedRanks(f"The rank file of {name} is missing ({error}): reinstall tollgate.") from error
    return build(ENCODINGS[name], packed)


def count(text: str, name: str = O200K) -> int:
    """How many tokens `text` is, taken literally: `<|endoftext|>` in it is text.

    Exact up to 8,000 characters, and beyond wherever words stand; else a few tokens more per 8,000 characters.
    """
    encode = load(name).encode_ordinary
    if len(text) <= PIECE_CHARS:
        return len(encode(text))
    return sum(len(encode(piece)) for piece in pieces(text))


def pieces(text: str) -> Iterator[str]:
    """`text` in runs of at most `PIECE_CHARS`, cut between two words where there are any: no token spans such a cut."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = _cut(text, start)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, start: int) -> int:
    end = start + PIECE_CHARS
    floor = start + PIECE_CHARS // 2
    blank = text.rfind(" ", floor, end)
    while blank > floor:
        if text[blank - 1].isalpha() and text[blank + 1].isalpha():
            return blank
        blank = text.rfind(" ", floor, blank)
    return end

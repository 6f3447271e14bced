"""A picture's size from the first bytes of a data URL, without decoding the picture; and what pictures cost in tokens.

Formulas are those measured on recorded traffic (OpenAI's tiles and patches exact; others approximate), per family.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final, TypeAlias

_HEADS: Final = (64, 4_096, 131_072, 1_048_576)
"""Base64 characters looked at in turn: a JPEG's size may stand behind a large colour profile or thumbnail."""
_SIDE_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a request.  A width of 0: size unknown (it is a link, or unreadable)."""

    width: int = 0
    height: int = 0
    detail: str = "auto"


ImageTokens: TypeAlias = Callable[[Image], tuple[int, int]]
"""Tokens of one picture: expected, and at most."""


def from_url(url: str, detail: str = "auto") -> Image:
    """The picture a URL stands for; its size is known only from a base64 data URL of PNG, JPEG, GIF or WebP."""
    if url[:5].lower() != "data:":
        return Image(detail=detail)
    comma = url.find(",", 5, 300)
    return from_base64(url, detail, comma + 1) if comma > 0 else Image(detail=detail)


def from_base64(data: str, detail: str = "auto", start: int = 0) -> Image:
    """The picture whose base64 text begins at `start`."""
    for head in _HEADS:
        try:
            raw = binascii.a2b_base64(data[start : start + head].rstrip("=")[: head // 4 * 4] + "==")
        except ValueError:
            break
        if (size := dimensions(raw)) is not None:
            return Image(*size, detail)
        if len(data) - start <= head or raw[:2] != b"\xff\xd8":
            break
    return Image(detail=detail)


def dimensions(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from a file's first bytes; None when they do not say, or say what cannot be."""
    size = _raw_dimensions(head)
    if size is None or not (0 < size[0] <= _SIDE_MAX and 0 < size[1] <= _SIDE_MAX):
        return None
    return size


def _raw_dimensions(head: bytes) -> tuple[int, int] | None:
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        return _big(head, 16, 4), _big(head, 20, 4)
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return _little(head, 6, 2), _little(head, 8, 2)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp(head)
    if head[:2] == b"\xff\xd8":
        return _jpeg(head)
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    match head[12:16]:
        case b"VP8X":
            return _little(head, 24, 3) + 1, _little(head, 27, 3) + 1
        case b"VP8L":
            bits = _little(head, 21, 4)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return _little(head, 26, 2) & 0x3FFF, _little(head, 28, 2) & 0x3FFF
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _big(head, at + 7, 2), _big(head, at + 5, 2)
        else:
            at += 2 + max(2, _big(head, at + 2, 2))
    return None


def _big(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "big")


def _little(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "little")


def tiles(base: int, tile: int) -> ImageTokens:
    """gpt-4o, gpt-4.1, gpt-5, o-series: within 2048 x 2048, short side to 768, tiles of 512.  `base` alone for low."""

    def tokens(image: Image) -> tuple[int, int]:
        if image.detail == "low":
            return base, base
        if not image.width:
            return base + 4 * tile, base + 8 * tile
        width, height = _within(image.width, image.height, 2048)
        shrink = min(1.0, 768 / min(width, height))
        exact = base + tile * _grid(width * shrink, height * shrink, 512)
        return exact, exact

    return tokens


def patches(factor: float, most: int) -> ImageTokens:
    """gpt-4.1-mini and -nano, o4-mini, gpt-5-mini and later: patches of 32, at most `most` of them, times `factor`."""

    def tokens(image: Image) -> tuple[int, int]:
        ceiling = ceil(factor * most) + 8
        if not image.width:
            return ceil(factor * min(most, 1_024)), ceiling
        exact = ceil(factor * _patches(image.width, image.height, 32, most)) + 2
        return exact, max(exact, min(ceiling, ceil(exact * 1.3) + 16))

    return tokens


def area(per_token: float, most: int, plus: int = 0) -> ImageTokens:
    """Claude and most open models: pixels / `per_token`, shrunk to at most `most` tokens."""

    def tokens(image: Image) -> tuple[int, int]:
        if not image.width:
            return most * 2 // 3 + plus, most + plus
        fit = min(most, ceil(image.width * image.height / per_token)) + plus
        return fit, min(most + plus, ceil(fit * 1.15) + 32)

    return tokens


def squares(tile: int, side: int, most: int) -> ImageTokens:
    """Gemini 2 and Grok: `tile` tokens for each square of `side`, and one for the whole; at most `most` squares."""

    def tokens(image: Image) -> tuple[int, int]:
        if not image.width:
            return tile * 5, tile * (most + 1)
        if max(image.width, image.height) <= 384:
            return tile, tile * 2
        grid = min(most, _grid(image.width, image.height, side))
        return tile * (grid + 1), tile * (most + 1)

    return tokens


def flat(expected: int, most: int) -> ImageTokens:
    """Models that give every picture about the same."""
    return lambda _: (expected, most)


def _within(width: float, height: float, side: int) -> tuple[float, float]:
    shrink = min(1.0, side / max(width, height))
    return width * shrink, height * shrink


def _grid(width: float, height: float, side: int) -> int:
    return max(1, ceil(width / side - 1e-9)) * max(1, ceil(height / side - 1e-9))


def _patches(width: int, height: int, side: int, most: int) -> int:
    if (whole := _grid(width, height, side)) <= most:
        return whole
    shrink = sqrt(side * side * most / (width * height))
    return min(most, _grid(width * shrink, height * shrink, side))

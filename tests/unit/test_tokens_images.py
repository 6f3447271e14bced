"""A picture's size from its first bytes, and what a picture costs."""

from __future__ import annotations

import base64
import struct

import pytest

from gateway.tokens import images
from gateway.tokens.images import Image


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0" + b"\0" * 40


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 20


def jpeg(width: int, height: int, profile: int = 0) -> bytes:
    segments = b""
    while profile > 0:
        size = min(profile, 65_000)
        segments += b"\xff\xe2" + struct.pack(">H", size + 2) + b"\x11" * size
        profile -= size
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\0" * 9
    return b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + b"\0" * 9 + segments + frame + b"\xff\xd9"


def webp(kind: bytes, payload: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + payload + b"\0" * 20


def lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height))


def lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


@pytest.mark.parametrize("make", [png, gif, jpeg, lossy, lossless, extended])
def test_the_size_is_read_from_the_header(make):
    url = "data:image/x;base64," + base64.b64encode(make(1024, 768)).decode()
    assert images.from_url(url, "high") == Image(1024, 768, "high")


def test_a_jpegs_size_is_found_behind_a_large_profile():
    data = base64.b64encode(jpeg(640, 480, profile=500_000)).decode()
    assert images.from_base64(data) == Image(640, 480)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/cat.png",
        "data:image/png;base64,",
        "data:image/png;base64,%%%%",
        "data:image/png;base64,é" + "A" * 80,
        "data:nothing",
        "data:image/png;base64," + base64.b64encode(png(0, 10)).decode(),
        "data:image/png;base64," + base64.b64encode(png(2**31, 2**31)).decode(),
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff\xe0\0\0\0\0\0\0\0\0\0\0").decode(),
        "",
    ],
)
def test_a_picture_that_does_not_tell_its_size_is_of_unknown_size(url):
    assert images.from_url(url) == Image()


@pytest.mark.parametrize(
    ("width", "height", "detail", "tokens"),
    [
        (100, 100, "auto", 255),  # recorded: one tile
        (512, 512, "high", 255),
        (1024, 1024, "high", 765),
        (2048, 4096, "high", 1105),  # recorded: six tiles
        (8000, 8000, "low", 85),
    ],
)
def test_gpt_4o_pays_by_tiles(width, height, detail, tokens):
    assert images.tiles(85, 170)(Image(width, height, detail)) == (tokens, tokens)


def test_gpt_4o_mini_pays_8500_for_one_tile():
    assert images.tiles(2_833, 5_667)(Image(200, 300)) == (8_500, 8_500)


@pytest.mark.parametrize(
    "cost",
    [
        images.tiles(85, 170),
        images.patches(1.62, 1_536),
        images.area(750, 1_600, 7),
        images.squares(258, 768, 16),
        images.flat(1_085, 2_300),
    ],
)
def test_no_picture_however_large_costs_more_than_its_bound_says(cost):
    unknown_bound = cost(Image())[1]
    for size in [(1, 1), (1, 100_000), (513, 511), (768, 768), (4096, 4096), (100_000, 100_000)]:
        expected, bound = cost(Image(*size))
        assert 0 < expected <= bound <= unknown_bound

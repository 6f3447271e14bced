"""Reads requests that are no conversation into `Facts`, with what bounds their cost.  Pure; see `reading`.

A price may be per token or per piece (an image, a second of sound, a character, a search unit), so both are counted:
the most tokens, and the most pieces, that such a request can use.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from math import ceil
from typing import Final

from gateway.money import IMAGE_INPUT
from gateway.tokens.images import Image
from gateway.tokens.parts import Body, Facts, Json, Misfit, optional
from gateway.types import Format

INPUTS_MAX: Final = 100_000
IMAGES_MAX: Final = 100
LEGACY_OUTPUT: Final = 16
"""What the legacy Completions answer at most where the request does not say."""

IMAGE_TOKENS_PIXEL: Final = 0.004
"""Of the best quality, measured on gpt-image-1: 4,160 tokens for 1024x1024, 6,208 for 1536x1024."""
IMAGE_TEXT_TOKENS: Final = 2_048
"""What newer models may write before they draw."""
IMAGE_PIXELS_UNSAID: Final = 1536 * 1024
PARTIAL_IMAGE_TOKENS: Final = 100
_QUALITIES: Final[Mapping[str, float]] = {"low": 0.07, "medium": 0.27}

SPEECH_TOKENS_CHARACTER: Final = 8
"""Tokens of sound for a character read out at a quarter of the usual speed; at the usual one it is 1.4."""
BYTES_SECOND_MIN: Final = 500
"""No codec in use for speech packs a second into less (AMR at 4.75 kbit/s: 594)."""

CHUNK_TOKENS: Final = 500
"""A document longer than this, with the query, counts as several: Cohere's rule for rerank."""
SEARCH_DOCUMENTS: Final = 100
"""Documents in a search unit."""


def read_completions(body: Body, facts: Facts) -> None:
    """Each prompt is answered `n` times, or thought about `best_of` times."""
    prompts = _texts_or_tokens(body.get("prompt", ""), "prompt", facts)
    facts.texts.append(optional(body, "suffix", str) or "")
    answers = [_count(body, name, 128) or 1 for name in ("n", "best_of")]
    facts.choices = prompts * max(answers)
    if facts.output_requested is None:
        facts.output_requested = LEGACY_OUTPUT


def read_embeddings(body: Body, facts: Facts) -> None:
    """Text or tokens, one or many."""
    _texts_or_tokens(body.get("input"), "input", facts)
    facts.output_requested = 0


def read_moderations(body: Body, facts: Facts) -> None:
    """Text, or parts of text and pictures."""
    value = body.get("input")
    parts = value if type(value) is list else [value]
    if not parts:
        raise Misfit("input", "text, or a list of texts or parts")
    for i, part in enumerate(parts):
        if type(part) is dict and "text" not in part:
            continue  # a picture
        text = part.get("text") if type(part) is dict else part
        if type(text) is not str:
            raise Misfit(f"input[{i}]" if parts is value else "input", "text")
        facts.texts.append(text)
    facts.output_requested = 0


def read_rerank(body: Body, facts: Facts) -> None:
    """A query and documents: strings, or objects with a text."""
    query = body.get("query")
    if type(query) is not str:
        raise Misfit("query", "a string")
    documents = body.get("documents")
    if type(documents) is not list or not 0 < len(documents) <= INPUTS_MAX:
        raise Misfit("documents", f"a list of 1 to {INPUTS_MAX} documents")
    room = max(CHUNK_TOKENS // 5, CHUNK_TOKENS - len(query.encode()))
    chunks = 0
    for i, document in enumerate(documents):
        text = document.get("text") if type(document) is dict else document
        if type(text) is not str:
            raise Misfit(f"documents[{i}]", "a string, or an object with a text")
        chunks += 1 + len(text.encode(errors="replace")) // room
        facts.texts.append(text)
    facts.texts += [query] * len(documents)
    facts.output_requested = 0
    facts.pieces = {"search_unit": ceil(chunks / SEARCH_DOCUMENTS)}


def read_images(body: Body, facts: Facts) -> None:
    """A prompt, and how many pictures of which size and quality."""
    prompt = body.get("prompt")
    if type(prompt) is not str:
        raise Misfit("prompt", "a string")
    facts.texts.append(prompt)
    _drawn(body, facts)


def read_image_edits(body: Body, facts: Facts) -> None:
    """The same, from pictures: files of a form, or objects with an address."""
    _given(body, facts)
    read_images(body, facts)


def read_image_variations(body: Body, facts: Facts) -> None:
    """A picture and no words."""
    _given(body, facts)
    _drawn(body, facts)


def _given(body: Body, facts: Facts) -> None:
    pictures = _pictures(body)
    if not 0 < len(pictures) <= IMAGES_MAX or not all(isinstance(one, memoryview | dict) for one in pictures):
        raise Misfit("image", "a picture, or a list of them: files in multipart/form-data")
    facts.images += [Image()] * (len(pictures) + bool(body.get("mask")))


def _drawn(body: Body, facts: Facts) -> None:
    facts.choices = _count(body, "n", IMAGES_MAX) or 1
    quality = optional(body, "quality", str) or ""
    share = _QUALITIES.get(quality, 1.0)
    drawn = ceil(_pixels(optional(body, "size", str) or "") * IMAGE_TOKENS_PIXEL * share)
    partial = _count(body, "partial_images", 10) or 0
    facts.output_requested = drawn + partial * PARTIAL_IMAGE_TOKENS + IMAGE_TEXT_TOKENS
    facts.pieces = image_pieces(body, facts.choices)


def image_pieces(body: Body, made: int) -> dict[str, int]:
    """So many pictures, and those that they are made from."""
    count = len(_pictures(body))
    return {_image_fee(body): made, IMAGE_INPUT: count} if count else {_image_fee(body): made}


def _pictures(body: Body) -> list[Json]:
    """Those that are given; a form repeats `image`."""
    given = body.get("images") or body.get("image")
    return given if type(given) is list else [given] if given else []


def _image_fee(body: Body) -> str:
    """The piece that a picture of this quality and size is: image, image:hd, image:1024x1792, image:hd:1024x1792 ..."""
    asked = (body.get("quality"), body.get("size"), body.get("resolution"))
    parts = [part for part in asked if isinstance(part, str) and part not in ("auto", "standard")]
    return ":".join(("image", *parts))


def read_speech(body: Body, facts: Facts) -> None:
    """Text to read out."""
    text = body.get("input")
    if type(text) is not str or not text:
        raise Misfit("input", "a non-empty string")
    facts.texts += [text, optional(body, "instructions", str) or ""]
    facts.output_requested = SPEECH_TOKENS_CHARACTER * len(text)
    facts.pieces = {"character": len(text)}


def read_transcriptions(body: Body, facts: Facts) -> None:
    """Sound to write down: a file of a form, or base64 in JSON."""
    facts.texts.append(optional(body, "prompt", str) or "")
    size, second = _sound(body)
    facts.audio.append(size * 4 // 3)
    facts.pieces = {"audio_second": ceil(size / second)}


def _sound(body: Body) -> tuple[int, int]:
    """Bytes of the file, and the fewest bytes that may be a second of it."""
    file = body.get("file")
    if isinstance(file, memoryview):
        return len(file), _bytes_second(bytes(file[:64]))
    audio = body.get("input_audio")
    data = audio.get("data") if type(audio) is dict else file
    if type(data) is not str:
        raise Misfit("file", "a file in multipart/form-data")
    try:
        head = b64decode(data[:64])
    except ValueError:
        head = b""
    return len(data) * 3 // 4, _bytes_second(head)


def _bytes_second(head: bytes) -> int:
    """What a WAV file says of itself; else the least there is."""
    if head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt " and len(head) >= 32:
        return max(BYTES_SECOND_MIN, int.from_bytes(head[28:32], "little"))
    return BYTES_SECOND_MIN


def seconds_expected(pieces: Mapping[str, int]) -> int:
    """How long sound of at most so many seconds most likely is: 64 kbit/s where nothing is known."""
    return max(1, pieces.get("audio_second", 0) * BYTES_SECOND_MIN // 8_000)


def _texts_or_tokens(value: Json, path: str, facts: Facts) -> int:
    """A text, tokens, or a list of either: how many there are of them."""
    if type(value) is str:
        facts.texts.append(value)
        return 1
    if type(value) is not list or not 0 < len(value) <= INPUTS_MAX:
        raise Misfit(path, "a string, tokens, or a list of them")
    if all(type(item) is int for item in value):
        facts.tokens += len(value)
        return 1
    for i, item in enumerate(value):
        if type(item) is list and all(type(token) is int for token in item):
            facts.tokens += len(item)
        elif type(item) is str:
            facts.texts.append(item)
        else:
            raise Misfit(f"{path}[{i}]", "a string or a list of tokens")
    return len(value)


def _count(body: Body, name: str, most: int) -> int | None:
    value = body.get(name)
    if type(value) is str and value.isdecimal():  # of a form
        value = int(value)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= most:
        raise Misfit(name, f"an integer up to {most}")
    return value


def _pixels(size: str) -> int:
    width, _, height = size.partition("x")
    if width.isdecimal() and height.isdecimal() and len(size) < 12:
        return int(width) * int(height)
    return IMAGE_PIXELS_UNSAID


ENDPOINTS: Final[Mapping[Format, Callable[[Body, Facts], None]]] = {
    Format.COMPLETIONS: read_completions,
    Format.EMBEDDINGS: read_embeddings,
    Format.MODERATIONS: read_moderations,
    Format.RERANK: read_rerank,
    Format.IMAGES: read_images,
    Format.IMAGE_EDITS: read_image_edits,
    Format.IMAGE_VARIATIONS: read_image_variations,
    Format.SPEECH: read_speech,
    Format.TRANSCRIPTIONS: read_transcriptions,
    Format.TRANSLATIONS: read_transcriptions,
}

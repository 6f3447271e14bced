"""multipart/form-data: bytes -> fields, and the same bytes with some fields changed.  Pure.

https://www.rfc-editor.org/rfc/rfc7578.  Files are not copied: a field of a file is a view into the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gateway.errors import InvalidRequest

PARTS_MAX = 100
HEAD_BYTES_MAX = 8192

_BOUNDARY = re.compile(r'^multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'^content-disposition\s*:[^\r\n]*?;\s*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)
_FILE = re.compile(rb"^content-disposition\s*:[^\r\n]*?;\s*filename\*?=", re.IGNORECASE | re.MULTILINE)
_FILENAME = re.compile(rb'^content-disposition\s*:[^\r\n]*?;\s*filename="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)


class Part(NamedTuple):
    """Where a part's content stands in the body."""

    name: str
    start: int
    end: int
    file: bool


def boundary(content_type: str) -> str | None:
    """The boundary that the header names; None where it is no form."""
    found = _BOUNDARY.match(content_type)
    return (found[1] or found[2]) if found else None


def fields(raw: bytes, boundary: str) -> dict[str, Any]:
    """Text by name; a file as a memoryview of its bytes; what repeats (`name[]` or `name`) as a list.

    Raises InvalidRequest.
    """
    found: dict[str, Any] = {}
    for part in _parts(raw, boundary):
        value = memoryview(raw)[part.start : part.end] if part.file else _text(raw, part)
        name = part.name.removesuffix("[]")
        if name in found or part.name != name:
            held = found.get(name, [])
            found[name] = [*(held if isinstance(held, list) else [held]), value]
        else:
            found[name] = value
    return found


def filename(raw: bytes, boundary: str, name: str) -> str:
    """What the client calls the file in this field; "" where it does not say.  Raises InvalidRequest."""
    for part in _parts(raw, boundary):
        if part.name == name:
            found = _FILENAME.search(raw, max(0, part.start - HEAD_BYTES_MAX), part.start)
            return found[1].decode(errors="replace") if found else ""
    return ""


def edited(raw: bytes, boundary: str, changes: Mapping[str, str]) -> bytes:
    """The same body with other text in these fields; every other byte as it came."""
    out: list[bytes] = []
    at = 0
    for part in _parts(raw, boundary):
        if part.name in changes:
            out += [raw[at : part.start], changes[part.name].encode()]
            at = part.end
    return b"".join((*out, raw[at:]))


def _text(raw: bytes, part: Part) -> str:
    try:
        return raw[part.start : part.end].decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"'{part.name}' must be UTF-8 text.", param=part.name) from None


def _parts(raw: bytes, boundary: str) -> Iterator[Part]:
    mark = b"--" + boundary.encode()
    at = 0 if raw.startswith(mark) else raw.find(b"\r\n" + mark) + 2
    if not raw.startswith(mark, at):
        raise _broken()
    for _ in range(PARTS_MAX):
        at += len(mark)
        if raw.startswith(b"--", at):
            return
        head_end = raw.find(b"\r\n\r\n", at, at + HEAD_BYTES_MAX)
        end = raw.find(b"\r\n" + mark, head_end + 2)
        name = _NAME.search(raw, at, head_end + 2) if head_end >= 0 else None
        if end < 0 or name is None:
            raise _broken()
        is_file = _FILE.search(raw, at, head_end + 2) is not None
        yield Part(name[1].decode(errors="replace"), head_end + 4, max(end, head_end + 4), is_file)
        at = end + 2
    raise InvalidRequest(f"The form has more than {PARTS_MAX} parts.")


def _broken() -> InvalidRequest:
    return InvalidRequest("The body is not the multipart/form-data its content-type says.")

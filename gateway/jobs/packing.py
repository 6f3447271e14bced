"""Nouns <-> bytes, as jobs keep them.  Pure."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any, TypeVar

import msgspec

from gateway.sql.nouns import zone_name, zone_of

T = TypeVar("T")


def _written(value: object) -> object:
    if isinstance(value, tzinfo):
        return zone_name(value)
    raise NotImplementedError(f"{type(value).__name__} is not kept")


def _read(kind: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's hook
    if issubclass(kind, tzinfo):
        return zone_of(value)
    raise NotImplementedError(f"{kind.__name__} is not kept")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_written)


def pack(value: object) -> bytes:
    """Dataclasses and structs of the nouns' types."""
    return _ENCODER.encode(value)


def unpack(data: bytes, kind: type[T]) -> T:
    """The value again.  Raises ValueError."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_read)

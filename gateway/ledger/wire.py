"""Record <-> bytes, as they wait in an outbox.  Older and newer gateways read each other: unknown fields are skipped,
absent ones have their defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from gateway.types import Record

log = structlog.get_logger(__name__)

INT_MAX = 2**63 - 1
TURN = 16
"""Records read or written before others have their turn on the event loop: a fraction of a millisecond."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record as MessagePack.  A number too absurd for 64 bits is written as the largest they hold."""
    try:
        return _encoder.encode(record)
    except OverflowError:
        held = {name: _held(getattr(record, name)) for name in Record.__struct_fields__}
        return _encoder.encode(msgspec.structs.replace(record, **held))


def decode(data: bytes) -> Record:
    """The record again, equal to the one encoded.  Raises ValueError for anything else."""
    return _decoder.decode(data)


async def readable(entries: Sequence[tuple[str, bytes]]) -> list[tuple[str, Record]]:
    """What can be read of an outbox.  The rest stays there, for a gateway that understands it, and holds nothing up."""
    records = []
    for number, (token, data) in enumerate(entries, 1):
        if number % TURN == 0:
            await asyncio.sleep(0)
        try:
            records.append((token, decode(data)))
        except ValueError as error:
            log.warning("record in the outbox cannot be read", token=token, why=str(error))
    return records


def _held(value: Any) -> Any:  # noqa: ANN401 - a field of any type
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-INT_MAX, min(value, INT_MAX))
    if isinstance(value, dict):
        return {key: _held(each) for key, each in value.items()}
    return value

"""What is kept of a batch: enough for any gateway to go on with it.  Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from gateway.dialects.batches.base import Item
from gateway.jobs.packing import pack, unpack
from gateway.ledger.base import Reservation
from gateway.types import Format, Price

KIND = "batch"
PART_LINES = 500
"""Lines that are packed together."""


class State(StrEnum):
    """Of a batch.  Clients see SETTING_ASIDE and SUBMITTING as VALIDATING, as OpenAI has no other words."""

    SETTING_ASIDE = "setting_aside"  # its request is being served
    VALIDATING = "validating"  # accepted; the provider has not seen it
    SUBMITTING = "submitting"  # the provider may have seen it
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


OVER = frozenset({State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED})


class Batch(msgspec.Struct, kw_only=True):
    """All of a batch but its lines.  Times are unix seconds; amounts NanoUSD."""

    endpoint: str  # as the client named it: /v1/chat/completions
    format: Format
    window: str
    input_file: str
    metadata: dict[str, str] | None = None
    provider: str
    model: str  # upstream model of the first line
    path: str  # the provider's endpoint
    prices: dict[str, Price]  # by deployment, as they were when it was made
    lines: int
    bytes: int
    packed: str = ""  # the file of its lines
    items: str = ""  # the file of what the provider is sent
    reserved: int = 0
    cost: int = 0
    unknown: int = 0  # lines whose cost is not known
    upstream: str = ""  # its id at the provider
    completed: int = 0
    failed: int = 0
    ended_as: str = ""  # what the provider says has become of it
    output_file: str = ""
    error_file: str = ""
    problem: str = ""  # why it failed
    times: dict[str, float] = {}  # by state, when it came there
    held_until: float = 0.0
    cancel_told: bool = False
    misses: int = 0  # tries in a row that came to nothing


class Line(msgspec.Struct, array_like=True, frozen=True):
    """One line: what was set aside for it and what reading its answer takes."""

    custom_id: str
    deployment: str
    expected: int  # input tokens
    output_cap: int
    choices: int
    held: Reservation

    @property
    def id(self) -> str:
        """Of its hold, of its record, and what the provider calls it."""
        return self.held.id


_body = msgspec.json.Decoder(Batch)


def encode(batch: Batch) -> bytes:
    """For the job's row."""
    return msgspec.json.encode(batch)


def decode(body: bytes) -> Batch:
    """The batch again."""
    return _body.decode(body)


def packed(lines: Sequence[Line] | Sequence[Item]) -> Iterator[bytes]:
    """Lines, or items, as parts of a file."""
    return (zlib.compress(pack(lines[at : at + PART_LINES]), 1) for at in range(0, len(lines), PART_LINES))


def unpacked(parts: Iterable[bytes]) -> list[Line]:
    """The lines again."""
    return [line for part in parts for line in unpack(zlib.decompress(part), list[Line])]


def unpacked_items(parts: Iterable[bytes]) -> list[Item]:
    """The items again."""
    return [item for part in parts for item in unpack(zlib.decompress(part), list[Item])]


def public(state: str, *, cancelling: bool) -> str:
    """The status as clients know it."""
    if state in OVER:
        return state
    if cancelling:
        return "cancelling"
    return State.VALIDATING if state in (State.SETTING_ASIDE, State.SUBMITTING) else state


def shape(id_: str, state: str, created: float, batch: Batch, cancel_at: float | None) -> Mapping[str, Any]:
    """OpenAI's batch object."""
    times = {f"{name}_at": int(at) for name, at in batch.times.items()}
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelled")
    return {
        "id": id_,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": [_problem(batch.problem)]} if batch.problem else None,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": public(state, cancelling=cancel_at is not None),
        "output_file_id": batch.output_file or None,
        "error_file_id": batch.error_file or None,
        "created_at": int(created),
        **{f"{name}_at": times.get(f"{name}_at") for name in moments},
        "expires_at": int(created) + 86_400,
        "cancelling_at": int(cancel_at) if cancel_at is not None else None,
        "request_counts": {"total": batch.lines, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    }


def _problem(message: str) -> Mapping[str, Any]:
    return {"code": "batch_failed", "message": message, "line": None, "param": None}

"""What the scripts are asked and what they answer, as values.  Pure."""

from __future__ import annotations

import msgspec

from gateway.errors import LimitReached
from gateway.ledger.base import Line, Spent, denies, refusal
from gateway.ledger.places import AMOUNT_MAX, Placed

_pack = msgspec.msgpack.Encoder().encode


def check(line: Line, number: int) -> tuple[int, int, int]:
    """What reserve looks at for a line: its place's number, its limit (-1: never refuses), its amount."""
    amount, limit = line.amount, line.limit.amount if denies(line) else -1
    return number + 1, limit if limit < AMOUNT_MAX else AMOUNT_MAX - 1, amount if amount < AMOUNT_MAX else AMOUNT_MAX


def used(spent: Spent) -> bytes:
    """All that the request used."""
    return _pack(_amounts(spent))


def shares(spent: Spent) -> bytes:
    """Who served how much of the request; nothing where whoever has an account served all of it."""
    if spent.shares is None:
        return b""
    return _pack({name: _amounts(each) for name, each in spent.shares.items()})


def _amounts(spent: Spent) -> list[int]:
    amounts = (spent.cost, spent.requests, spent.input_tokens, spent.output_tokens)
    return [each if each < AMOUNT_MAX else AMOUNT_MAX for each in amounts]


def pairs(reply: list[int]) -> list[tuple[int, int]]:
    """(spent, reserved) of each place."""
    return list(zip(reply[2::2], reply[3::2], strict=True))


def refused_by(placed: Placed, reply: list[int]) -> LimitReached:
    """The error that says which line was full."""
    _, now, number, spent, reserved, wait = reply
    line, counter, _ = placed.of_line[number - 1]
    room_at = counter.resets if wait < 0 else (now + wait) / 1000
    return refusal(line, spent, reserved, room_at, now / 1000)


def age(entry_id: bytes) -> tuple[int, int]:
    """By which entries of several outboxes are put in order."""
    at, _, number = entry_id.partition(b"-")
    return int(at), int(number)

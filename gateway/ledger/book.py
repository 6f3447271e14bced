"""The ledger's arithmetic where it runs in Python: for `memory` and `sqlite`.  Pure but for the store it is given.

Every verb decides first and changes afterwards, so an error leaves the store as it was.  The Lua scripts say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from gateway.errors import Conflict
from gateway.ledger.base import Balance, Line, Reservation, Settlement, Spent, full, refusal
from gateway.ledger.places import Counter, Counters, Place, Take, place
from gateway.ledger.wire import encode
from gateway.types import Record, Unit

PRESUMED_KEPT_MS = 8 * 86_400_000
"""How long a late settle still finds what was presumed; promised are seven days."""

SETTLED_KEPT_MS = 86_400_000
"""How long a second settle of an id is known to be one."""

RELEASED_KEPT_MS = 600_000
"""How long a reserve that was overtaken by its own release is refused."""


UNITS = {unit.value: unit for unit in Unit}


class State(StrEnum):
    """Of an id.  The Lua scripts use the same letters."""

    OPEN = "O"
    PRESUMED = "P"
    SETTLED = "S"
    RELEASED = "R"


OPEN, PRESUMED, SETTLED, RELEASED = State


@dataclass(slots=True)
class Cell:
    """A counter, or one slot of a rolling one."""

    spent: int = 0
    reserved: int = 0
    keep: int = 0


class Hold(msgspec.Struct, frozen=True, gc=False):
    """What is known of an id.  `until`: unix ms when an open hold expires, and when any other is forgotten."""

    id: str
    state: State
    until: int
    takes: tuple[Take, ...] = ()
    draft: bytes = b""


class Store(Protocol):
    """Where counters and holds are kept."""

    def cells(self, key: str) -> dict[int, Cell]:
        """The slots of a counter; a calendar window has only slot 0."""
        ...

    def changed(self, key: str, slot: int) -> None:
        """This cell was written."""
        ...

    def hold(self, id_: str) -> Hold | None:
        """What is known of the id."""
        ...

    def put(self, hold: Hold) -> None:
        """From now on this is known of its id."""
        ...

    def due(self, now_ms: int) -> list[Hold]:
        """Open holds past their expiry, or as many of them as fit one transaction."""
        ...

    def append(self, record: bytes) -> None:
        """Puts a record in the outbox."""
        ...


def reserve(store: Store, reservation: Reservation, counters: Counters, now_ms: int) -> list[Balance]:
    """Sets every line aside or none.  Raises BudgetExceeded, RateLimited; Conflict for an id that was used before."""
    known = store.hold(reservation.id)
    if known is not None and (known.state is OPEN or known.until > now_ms):
        raise Conflict(f"Request id {reservation.id} is already in the ledger.")
    placed = place(reservation.lines, now_ms, counters)
    seen = [_sums(store, each, now_ms) for each in placed.places]
    for line, counter, number in placed.of_line:
        spent, reserved = seen[number]
        if full(line, spent, reserved):
            raise _refused(store, line, counter, (spent, reserved), now_ms)
    takes = tuple(placed.takes(now_ms))
    for number, take in enumerate(takes):
        _add(store, take, 0, take.amount)
        spent, reserved = seen[number]
        seen[number] = spent, reserved + take.amount
    until = now_ms + int(reservation.ttl_s * 1000)
    store.put(Hold(reservation.id, OPEN, until, takes, encode(reservation.draft)))
    return placed.balances(seen)


def extend(store: Store, reservation: Reservation, ttl_s: float, now_ms: int) -> bool:
    """Moves the expiry of an open hold, never backward."""
    hold = store.hold(reservation.id)
    if hold is None or hold.state is not OPEN:
        return False
    until = max(hold.until, now_ms + int(ttl_s * 1000))
    store.put(Hold(hold.id, OPEN, until, hold.takes, hold.draft))
    return True


def settle(
    store: Store, reservation: Reservation, spent: Spent, record: Record, counters: Counters, now_ms: int
) -> Settlement:
    """Books what was spent in place of what was held or presumed, once."""
    hold = store.hold(reservation.id)
    if hold is None or hold.state is RELEASED:
        found = Settlement.UNKNOWN
        at_ms = int(reservation.draft.at * 1000)
        for take in place(reservation.lines, at_ms, counters).takes(at_ms):
            _add(store, take, spent.of(UNITS[take.unit], take.share), 0)
    elif hold.state is SETTLED:
        return Settlement.AGAIN
    elif hold.state is OPEN:
        found = Settlement.SETTLED
        for take in hold.takes:
            _add(store, take, spent.of(UNITS[take.unit], take.share), -take.amount)
    else:
        found = Settlement.LATE
        for take in hold.takes:
            _add(store, take, spent.of(UNITS[take.unit], take.share) - take.presumed, 0)
    store.put(Hold(reservation.id, SETTLED, now_ms + SETTLED_KEPT_MS))
    store.append(encode(record))
    return found


def release(store: Store, reservation: Reservation, now_ms: int) -> None:
    """Frees an open hold.  A presumption stands until it is settled."""
    hold = store.hold(reservation.id)
    if hold is not None and hold.state in (PRESUMED, SETTLED):
        return
    if hold is not None and hold.state is OPEN:
        for take in hold.takes:
            _add(store, take, 0, -take.amount)
    store.put(Hold(reservation.id, RELEASED, now_ms + RELEASED_KEPT_MS))


def expire(store: Store, now_ms: int) -> int:
    """Books the holds past their expiry as presumed spend.  How many; 0: none is left."""
    due = store.due(now_ms)
    for hold in due:
        for take in hold.takes:
            _add(store, take, take.presumed, -take.amount)
        store.append(hold.draft)
        store.put(Hold(hold.id, PRESUMED, now_ms + PRESUMED_KEPT_MS, hold.takes, hold.draft))
    return len(due)


def balances(store: Store, lines: Sequence[Line], counters: Counters, now_ms: int) -> list[Balance]:
    """What is spent and reserved now."""
    placed = place(lines, now_ms, counters)
    return placed.balances([_sums(store, each, now_ms) for each in placed.places])


def _sums(store: Store, each: Place, now_ms: int) -> tuple[int, int]:
    cells = store.cells(each.key)
    if not each.step:
        return (cells[0].spent, cells[0].reserved) if 0 in cells else (0, 0)
    first = (now_ms - each.length) // each.step
    gone: list[int] = []
    spent = reserved = 0
    for slot, cell in cells.items():
        if slot < first:
            gone.append(slot)
            continue
        spent += cell.spent
        reserved += cell.reserved
    for slot in gone:
        del cells[slot]
    return spent, reserved


def _add(store: Store, take: Take, spent: int, reserved: int) -> None:
    """A counter that was lost never goes below zero: that would be room that is not there."""
    key, slot = take.key, take.slot
    cells = store.cells(key)
    if slot not in cells:
        cells[slot] = Cell()
    cell = cells[slot]
    if spent:
        after = cell.spent + spent
        cell.spent = after if after > 0 else 0
    if reserved:
        after = cell.reserved + reserved
        cell.reserved = after if after > 0 else 0
    cell.keep = take.keep
    store.changed(key, slot)


def _refused(store: Store, line: Line, counter: Counter, seen: tuple[int, int], now_ms: int) -> Exception:
    spent, reserved = seen
    used = [(slot, cell.spent + cell.reserved) for slot, cell in store.cells(counter.key).items()]
    room_at = counter.span.room_at(used, spent + reserved + line.amount - line.limit.amount, now_ms)
    return refusal(line, spent, reserved, room_at, now_ms / 1000)

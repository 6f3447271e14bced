"""The ledger's promise.

Money (and requests, tokens, places in flight) is set aside before it is spent, and settled when what it cost is known.

* `reserve` takes every line of a reservation or none, in one atomic step; a refusal changes nothing.
* For every DENY limit, settled + reserved never passes the limit at any instant by a reservation.  A settlement above
  its reservation is booked in full: the truth is never capped.
* `settle` counts once per id, however often and by however many gateways it is called; it frees what was not used.
* `extend` moves the expiry of a hold forward.
* A hold nobody settles by its expiry is booked as presumed spend (its whole amount; places in flight are freed), and a
  record says so.  A settle that comes later replaces the presumption by the truth, with a record of version 1.
* A window's spend is charged to the window in which the reservation was made.
* Records given to `settle`, and those of presumed spend, wait in the outbox until `ack`.

* A deployment's or a provider's account is charged with what was used there and with nothing else (`Spent.shares`).
* An id is reserved once: ids are the gateway's own, never a client's, or one hold could pay for two requests.

Raises: BudgetExceeded, RateLimited (a line is full), Conflict (an id reserved before), LedgerUnavailable (cannot be
reached, or too slow).  After LedgerUnavailable a reserve holds nothing; a settle may have counted and can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from gateway.errors import BudgetExceeded, LimitReached, RateLimited
from gateway.money import dollars
from gateway.types import (
    COST,
    DENY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    STEP_KINDS,
    TOKENS,
    Account,
    Limit,
    NanoUSD,
    Record,
    Unit,
)


class Line(msgspec.Struct, frozen=True, gc=False):
    """One limit as it applies to one request: set `amount` aside in `account`."""

    account: Account
    limit: Limit
    amount: int


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """Set aside for one request across all its accounts."""

    id: str
    tenant: str
    lines: tuple[Line, ...]
    draft: Record  # what the presumed record will say if nobody settles: version 0, outcome PRESUMED
    ttl_s: float = 120.0

    def beside(self, id_: str, lines: tuple[Line, ...], ttl_s: float) -> Reservation:
        """One more for the same request."""
        amount = max(line.amount for line in lines)
        draft = msgspec.structs.replace(self.draft, id=id_, cost=amount, reserved=amount)
        return Reservation(id_, self.tenant, lines, draft, ttl_s)


def share_of(account: Account) -> str:
    """Which share of a request the account pays for: "" is all of it, else the name of who served that share."""
    return f"{account.kind} {account.id}" if account.kind in STEP_KINDS else ""


class Spent(msgspec.Struct, frozen=True, gc=False):
    """What a request really used, in each unit.

    `shares`: what of it each deployment and provider served, by `share_of` its account; who is not named served
    nothing.  None: whoever has an account in the reservation served all of it.
    """

    cost: NanoUSD = 0
    requests: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    shares: Mapping[str, Spent] | None = None

    def of(self, unit: Unit, share: str = "") -> int:
        """The amount in `unit` of that share; places in flight are always given back."""
        if share and self.shares is not None:
            return self.shares.get(share, NOTHING).of(unit)
        if unit is COST:
            return self.cost
        if unit is REQUESTS:
            return self.requests
        ins = self.input_tokens if unit is TOKENS or unit is INPUT_TOKENS else 0
        return ins + self.output_tokens if unit is TOKENS or unit is OUTPUT_TOKENS else ins

    def __add__(self, other: Spent) -> Spent:
        """Both together, whoever served them."""
        return Spent(
            self.cost + other.cost,
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


NOTHING = Spent(0, 0)


class Balance(msgspec.Struct, frozen=True, gc=False):
    """One line's window as last seen."""

    account: Account
    limit: Limit
    spent: int
    reserved: int
    resets: float | None  # unix seconds when the window ends; None: never, or rolling

    @property
    def remaining(self) -> int:
        """What can still be set aside; never negative."""
        left = self.limit.amount - self.spent - self.reserved
        return left if left > 0 else 0


class Settlement(StrEnum):
    """What a settle found."""

    SETTLED = "settled"  # the hold was open
    LATE = "late"  # the hold had expired; the presumption was replaced
    AGAIN = "again"  # already settled: nothing changed
    UNKNOWN = "unknown"  # no such hold (a wiped ledger): the spend was booked all the same


class Ledger(Protocol):
    """See the module's promise.  Every method may raise LedgerUnavailable."""

    async def reserve(self, reservation: Reservation) -> list[Balance]:
        """Sets every line aside or none.  Balances after the reservation, in the order of the lines."""
        ...

    async def extend(self, reservation: Reservation, ttl_s: float) -> bool:
        """The hold now expires `ttl_s` from now.  False: it is no longer open."""
        ...

    async def settle(self, reservation: Reservation, spent: Spent, record: Record) -> Settlement:
        """Books `spent` on every line, frees the rest, and puts `record` in the outbox.  Once per id."""
        ...

    async def release(self, reservation: Reservation) -> None:
        """Frees everything: nothing reached a provider, nothing is owed, nothing is recorded.

        A hold that has expired stays presumed spend, for its record has been written: settle it with what it cost.
        """
        ...

    async def expire(self) -> int:
        """Books holds past their expiry as presumed spend, with their drafts as records.  How many."""
        ...

    async def balances(self, lines: Sequence[Line]) -> list[Balance]:
        """What is spent and reserved on each line's account now; amounts are ignored."""
        ...

    async def outbox(self, count: int) -> list[tuple[str, Record]]:
        """Up to `count` records not yet acknowledged, oldest first, with the token that acknowledges each."""
        ...

    async def ack(self, tokens: Sequence[str]) -> None:
        """These records are in SQL; forget them."""
        ...

    async def ping(self) -> None:
        """Returns if the ledger can serve."""
        ...

    async def close(self) -> None:
        """Gives connections and files back."""
        ...


def denies(line: Line) -> bool:
    """Whether the line can be refused at all.  What costs nothing never is."""
    return line.limit.action is DENY and line.amount > 0


def full(line: Line, spent: int, reserved: int) -> bool:
    """Whether the limit refuses the line for want of room."""
    return spent + reserved + line.amount > line.limit.amount and denies(line)


def refusal(line: Line, spent: int, reserved: int, resets: float | None, now: float) -> LimitReached:
    """The error that says which limit is full, by how much, and when it resets."""
    limit = line.limit
    retry_after_s = max(0.0, resets - now) if resets is not None else None
    where = f"{line.account}, window {limit.window}"
    if limit.unit is COST:
        return BudgetExceeded(
            f"Budget exceeded for {where}: limit ${dollars(limit.amount)}, spent ${dollars(spent)}, "
            f"held by requests in flight ${dollars(reserved)}, needed ${dollars(line.amount)}.",
            account=str(line.account),
            window=str(limit.window),
            retry_after_s=retry_after_s,
        )
    return RateLimited(
        f"Rate limit reached for {where}: limit {limit.amount} {limit.unit}, used {spent}, "
        f"in flight {reserved}, needed {line.amount}.",
        account=str(line.account),
        window=str(limit.window),
        retry_after_s=1.0 if retry_after_s is None else retry_after_s,
        balance=Balance(line.account, limit, spent, reserved, resets),
    )

"""Compares what the ledger, the records and the metrics say was spent, and explains each difference.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gateway.accounts import account_of
from gateway.ledger.base import Balance
from gateway.money import dollars
from gateway.sql.totals import Total
from gateway.types import INPUT_BUCKETS, OUTPUT_BUCKETS, Account, Key, Limit, NanoUSD, Record, Tenant, Unit

Counter = tuple[Account, Unit, str]
"""An account, a unit and a window: what the ledger counts."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Ledger less records of one counter, and where it comes from.  `fine`: all of it is explained."""

    account: Account
    limit: Limit
    ledger: int
    reserved: int
    records: int
    waiting: int  # in records on their way to SQL
    why: str
    fine: bool


def compare(balances: Iterable[Balance], found: Iterable[Total], outbox: Iterable[Record]) -> list[Difference]:
    """Every counter whose ledger and records are not the same."""
    sums: dict[Counter, int] = {}
    for total in found:
        key = _counter(total.account, total.limit)
        sums[key] = sums.get(key, 0) + total.spent
    waiting = list(outbox)
    differences = []
    for balance in {_counter(each.account, each.limit): each for each in balances}.values():
        booked = sums.get(_counter(balance.account, balance.limit), 0)
        if balance.spent != booked:
            differences.append(_explained(balance, booked, _on_the_way(balance, waiting)))
    return differences


def metrics_of(text: str) -> dict[str, NanoUSD]:
    """What each tenant's calls cost by the text of one or more /metrics."""
    found: dict[str, NanoUSD] = {}
    for line in text.splitlines():
        if line.startswith("tollgate_cost_usd_total{"):
            labels, _, value = line.rpartition(" ")
            tenant = labels.partition('tenant="')[2].partition('"')[0]
            found[tenant] = found.get(tenant, 0) + round(float(value) * 1e9)
    return found


def told_by_metrics(
    shown: Mapping[str, NanoUSD], booked: Mapping[str, NanoUSD], waiting: Iterable[Record]
) -> Iterator[str]:
    """What is to be said of each tenant for whom metrics and records differ."""
    on_the_way: dict[str, int] = {}
    for record in waiting:
        on_the_way[record.tenant] = on_the_way.get(record.tenant, 0) + (record.cost or 0)
    for tenant in sorted({*shown, *booked}):
        counted, stored = shown.get(tenant, 0), booked.get(tenant, 0)
        if counted < stored:
            why = "the gateways count from their start, the records are older; or a gateway's metrics were not given"
        elif counted > stored + on_the_way.get(tenant, 0):
            why = "records are in a spool, in quarantine or lost (see tollgate_records_failed_total), or were resolved"
        elif counted > stored:
            why = "records are on their way to SQL"
        else:
            continue
        yield f"tenant {tenant}: metrics ${dollars(counted)}, records ${dollars(stored)}: {why}"


def _counter(account: Account, limit: Limit) -> Counter:
    return account, limit.unit, f"{limit.window}/{limit.window.zone}"


def _explained(balance: Balance, booked: int, waiting: int) -> Difference:
    gap = balance.spent - booked
    if gap == waiting:
        why, fine = "records are on their way to SQL", True
    elif gap > 0:
        why = "booked without a record in SQL: look into the spools and the quarantine of the gateways"
        fine = False
    else:
        why = (
            "recorded without being booked here: before this limit existed, while the ledger was away, or resolved late"
        )
        fine = False
    return Difference(balance.account, balance.limit, balance.spent, balance.reserved, booked, waiting, why, fine)


def _on_the_way(balance: Balance, waiting: Iterable[Record]) -> int:
    return sum(_amount(balance.limit.unit, record) for record in waiting if _pays(balance.account, record))


def _amount(unit: Unit, record: Record) -> int:
    if unit is Unit.COST:
        return record.reserved if record.cost is None else record.cost
    if unit is Unit.REQUESTS:
        return 1
    kinds = {Unit.INPUT_TOKENS: INPUT_BUCKETS, Unit.OUTPUT_TOKENS: OUTPUT_BUCKETS}.get(unit)
    return sum(count for bucket, count in record.tokens.items() if kinds is None or bucket in kinds)


def _pays(account: Account, record: Record) -> bool:
    """Whether the record's request counts against the account."""
    if account.tenant and account.tenant != record.tenant:
        return False
    if account.kind in ("deployment", "provider"):
        return account.id == (record.deployment if account.kind == "deployment" else record.provider)
    tenant = Tenant(record.tenant, tags=record.tags)
    asked = _Asked(Key(record.key, record.tenant, "", b""), record.tags, record.user, record.task, record.model)
    own = account_of(account.kind, account.tenant, asked, tenant)
    return own is not None and own.id == account.id


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a record still says of its request."""

    key: Key
    tags: Mapping[str, str]
    user: str
    task: str
    model: str

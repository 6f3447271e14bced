"""What `tollgate ledger verify` compares, read from where it is."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from gateway.accounts import in_force, shared_lines
from gateway.ledger.base import Ledger, Line
from gateway.rebuild import windows
from gateway.sql.records import Filter
from gateway.sql.spend import spend
from gateway.sql.totals import totals
from gateway.tenants import Directory
from gateway.verify import Difference, compare, metrics_of, told_by_metrics

if TYPE_CHECKING:
    from gateway.settings import Settings
    from gateway.sql.tenants import Store
    from gateway.types import Limit

METRICS_S = 10
OUTBOX_MAX = 100_000


async def figures(
    settings: Settings, store: Store, ledger: Ledger, metrics: Sequence[str]
) -> tuple[list[Difference], list[str], int]:
    """Differences of accounts, what is to be said of metrics, and how many accounts were compared."""
    stored = await store.snapshot()
    directory = Directory([*settings.tenants, *stored.tenants], [*settings.keys, *stored.keys])
    everyone = in_force(settings.limits, stored.limits)
    wanted = list(windows(_limits(everyone, directory), time.time()))
    found, _ = await store.database.run(lambda connection: totals(connection, wanted, time.time()), timeout_s=60)
    tenants = await store.database.run(lambda connection: spend(connection, Filter(), ("tenant",), 100_000))
    shared = shared_lines(directory.tenants, everyone, settings.deployments.values(), now=time.time())
    lines = [*shared, *(Line(total.account, total.limit, 0) for total in found)]
    waiting = [record for _, record in await ledger.outbox(OUTBOX_MAX)]
    balances = await ledger.balances(lines)
    told: list[str] = []
    if metrics:
        shown = metrics_of("\n".join(_text(url) for url in metrics))
        booked = {str(group.group[0]): group.cost for group in tenants}
        told = list(told_by_metrics(shown, booked, waiting))
    counted = [each for each in balances if str(each.limit.unit) != "concurrent"]
    return compare(counted, found, waiting), told, len({(each.account, each.limit.id) for each in counted})


def _limits(everyone: Iterable[Limit], directory: Directory) -> Iterator[tuple[Limit, str]]:
    for payer in directory.tenants:
        yield from ((limit, payer.id) for limit in payer.limits)
    for key in directory.keys:
        yield from ((limit, key.tenant) for limit in key.limits)
    yield from ((limit, "") for limit in everyone)


def _text(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--metrics must be a URL such as http://127.0.0.1:8080/metrics, not {url!r}")
    with urllib.request.urlopen(url, timeout=METRICS_S) as reply:  # noqa: S310 - the scheme was looked at
        body: bytes = reply.read()
    return body.decode()

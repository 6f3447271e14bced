"""Every way in which ledger and records can differ is told with where it comes from."""

from __future__ import annotations

import pytest
from ledgers import ACME, DAY, draft

from gateway.ledger.base import Balance
from gateway.sql.totals import Total
from gateway.types import Account, Limit, Record, Unit, Window
from gateway.verify import compare

COST = Limit("tenant", Unit.COST, 10_000, DAY, id="cost")
REQUESTS = Limit("tenant", Unit.REQUESTS, 10_000, DAY, id="requests")


def differences(ledger: int, records: int, *outbox: Record, limit: Limit = COST) -> list[tuple[str, bool]]:
    found = compare([Balance(ACME, limit, ledger, 0, None)], [Total(ACME, limit, records, 0.0)], outbox)
    return [(each.why, each.fine) for each in found]


def test_what_is_the_same_is_no_difference() -> None:
    assert differences(700, 700) == []
    assert differences(700, 700, draft("a", cost=50)) == []  # booked under a limit that came later


@pytest.mark.parametrize("limit", [COST, REQUESTS])
def test_what_waits_in_the_outbox_explains_itself(limit: Limit) -> None:
    waiting = [draft("a", cost=50), draft("b", cost=None, reserved=30), draft("c", cost=99, tenant="globex")]
    [(why, fine)] = differences(1000 + (80 if limit is COST else 2), 1000, *waiting, limit=limit)
    assert fine
    assert "on their way" in why


def test_what_was_booked_and_has_no_record_is_looked_for_on_disk() -> None:
    for outbox in ([], [draft("a", cost=50)]):
        [(why, fine)] = differences(1100, 1000, *outbox)
        assert not fine
        assert "spools" in why
        assert "quarantine" in why


def test_what_was_recorded_and_not_booked_is_told_with_when_that_happens() -> None:
    [(why, fine)] = differences(900, 1000)
    assert not fine
    for cause in ("before this limit existed", "ledger was away", "resolved late"):
        assert cause in why


def test_windows_units_and_accounts_are_compared_each_with_its_own() -> None:
    total = Limit("tenant", Unit.COST, 10_000, Window(), id="total")
    other = Account("tenant", "globex", "globex")
    balances = [Balance(ACME, COST, 5, 0, None), Balance(ACME, REQUESTS, 1, 0, None), Balance(other, COST, 9, 0, None)]
    found = [Total(ACME, COST, 5, 0.0), Total(ACME, REQUESTS, 1, 0.0), Total(other, COST, 8, 0.0)]
    [one] = compare([*balances, Balance(ACME, total, 5, 0, None)], [*found, Total(ACME, total, 5, 0.0)], [])
    assert (one.account, one.ledger, one.records) == (other, 9, 8)

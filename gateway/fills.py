"""How full `degrade` budgets are, as last seen: plans get cheaper by it without asking the ledger once more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.accounts import account_of, holds
from gateway.ledger.base import Balance
from gateway.types import DEGRADE, Account, Limit, Request, Tenant

KNOWN_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Fill:
    """The share of a budget that is spent or set aside; above 1 once it is overdrawn."""

    account: Account
    limit: Limit
    share: float
    resets: float | None


class Fills:
    """One per process.  `see` is told every reservation's balances; costs nothing where no budget degrades."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Account, str], Fill] = {}

    def see(self, balances: Iterable[Balance]) -> None:
        """Remembers what the ledger said of `degrade` budgets."""
        for balance in balances:
            limit = balance.limit
            if limit.action is DEGRADE:
                if len(self._seen) >= KNOWN_MAX:
                    self._seen.clear()
                share = (balance.spent + balance.reserved) / limit.amount if limit.amount else 1.0
                self._seen[balance.account, limit.id] = Fill(balance.account, limit, share, balance.resets)

    def fullest(self, request: Request, tenant: Tenant, everyone: Iterable[Limit]) -> Fill | None:
        """The fullest of the budgets that this request counts against; None where none is known."""
        if not self._seen:
            return None
        found: Fill | None = None
        for owner, limits in ((tenant.id, tenant.limits), (tenant.id, request.key.limits), ("", everyone)):
            for limit in limits:
                if limit.action is DEGRADE and holds(limit, request.received):
                    fill = self._known(limit, owner, request, tenant)
                    if fill is not None and (found is None or fill.share > found.share):
                        found = fill
        return found

    def _known(self, limit: Limit, owner: str, request: Request, tenant: Tenant) -> Fill | None:
        account = account_of(limit.account, owner, request, tenant)
        if account is None or limit.of not in ("", account.id):
            return None
        fill = self._seen.get((account, limit.id))
        return None if fill is None or (fill.resets is not None and request.received >= fill.resets) else fill

"""Who pays for shadows.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.admission import IDLE
from gateway.plan import Aside
from gateway.types import Action, Every, Limit, Route, Tenant, Unit, Window


def payer_of(route: str, aside: Aside) -> Tenant:
    """The tenant of a route's shadows; nobody has a key of it, and no tenant can be named so."""
    budget = Limit("tenant", Unit.COST, aside.budget, Window(Every.DAY), Action.DENY, id="shadow")
    return Tenant(
        f"shadow:{route}", models=(), limits=(budget,), on_ledger_outage="refuse", drop_params=True, priority=IDLE
    )


def payers(routes: Iterable[Route]) -> Iterator[Tenant]:
    """Those of all routes that have shadows."""
    for route in routes:
        for aside in asides(route.policies):
            yield payer_of(route.id, aside)


def asides(policies: Iterable[object]) -> list[Aside]:
    """What policies ask beside, those of other packages too: a policy says so by its attribute `aside`."""
    found = (getattr(policy, "aside", None) for policy in policies)
    return [each for each in found if isinstance(each, Aside)]

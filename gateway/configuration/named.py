"""A limit `of` one account has to name one that there is: a typo would turn it off, and nobody would know."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from gateway.configuration.payers import Payers
from gateway.configuration.places import Places
from gateway.document import nearest
from gateway.types import ORGANISATION, Limit, Tenant

ALL = ("all",)
"""The one account of everyone together."""

Known = Mapping[str, Collection[str]]
"""Names by kind of account; a kind that is not here has names that only requests tell: users, tasks, tags."""


def nobody(limit: Limit, known: Known) -> str:
    """What is wrong with the account that the limit names; "" if nothing is."""
    names = known.get(limit.account)
    if not limit.of or names is None or limit.of in names:
        return ""
    return f"there is no {limit.account} {limit.of!r}{nearest(limit.of, names)}"


def check(places: Places, payers: Payers, providers: Collection[str]) -> None:
    """Notes in the document each limit of a place or a model that is not in it."""
    known = {"global": ALL, "deployment": places.stated, "provider": providers, "model": places.names()}
    for where, limit in payers.named:
        if wrong := nobody(limit, known):
            payers.document.problem((*where, "of"), wrong)


def notices(payers: Payers, tenants: Sequence[Tenant]) -> Iterator[str]:
    """The same of tenants and keys, which an administrator may have made, or may yet make."""
    organisations = {tenant.tags[ORGANISATION] for tenant in tenants if ORGANISATION in tenant.tags}
    known = {"tenant": {tenant.id for tenant in tenants}, "key": {key.id for key in payers.keys}}
    for _, limit in payers.named:
        if nobody(limit, {**known, ORGANISATION: organisations}):
            yield f"limit {limit.id!r} is of {limit.account} {limit.of!r}, which is not in this file"

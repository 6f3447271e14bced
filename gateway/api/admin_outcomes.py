"""`/admin/v1/outcomes`: how requests and tasks turned out, to be told; and what that says of deployments."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field, model_validator

from gateway.api.admin_reports import REPORT_S, SPEND_DAYS, Which
from gateway.api.admin_shapes import Desk, desk, listed, money
from gateway.configuration.schema import Shape
from gateway.sql.outcomes import REQUEST, SHADOW, TASK, Turnout, store, worth
from gateway.sql.records import TEXT_MAX

router = APIRouter(prefix="/admin/v1")
At = Annotated[Desk, Depends(desk)]

OUTCOMES_MAX = 1000
"""That one call may bring."""


class OutcomeBody(Shape):
    """How one request (`x-tollgate-request-id`) or one task (`x-tollgate-task`) turned out."""

    request: str = Field("", max_length=TEXT_MAX)
    task: str = Field("", max_length=TEXT_MAX)
    success: bool | None = None
    score: float | None = Field(None, ge=0, le=1)
    resolved: bool | None = None
    source: str = Field("client", min_length=1, max_length=64)
    at: float | None = Field(None, ge=0)  # unix seconds; now unless given

    @model_validator(mode="after")
    def _says_something(self) -> OutcomeBody:
        if bool(self.request) == bool(self.task):
            raise ValueError("name either a `request` or a `task`")
        if self.success is None and self.score is None and self.resolved is None:
            raise ValueError("say `success`, `score` or `resolved`")
        if "\0" in f"{self.request}{self.task}{self.source}":
            raise ValueError("no text may hold a NUL")
        if self.source.startswith(SHADOW):
            raise ValueError(f"sources that begin with {SHADOW!r} are the gateway's own")
        return self

    def turnout(self, now: float) -> Turnout:
        """As it is stored."""
        kind, subject = (REQUEST, self.request) if self.request else (TASK, self.task)
        at = now if self.at is None else self.at
        return Turnout(kind, subject, self.source, at, self.success, self.score, self.resolved)


class OutcomesBody(Shape):
    """Several at once."""

    outcomes: list[OutcomeBody] = Field(min_length=1, max_length=OUTCOMES_MAX)


@router.post("/outcomes", status_code=201)
async def tell(body: OutcomesBody, at: At) -> dict[str, Any]:
    """Stores outcomes; what a source says of a request or task replaces what it said before."""
    found = [each.turnout(time.time()) for each in body.outcomes]
    stored = await at.store.database.run(lambda connection: store(connection, found), write=True)
    return {"object": "outcomes", "stored": stored}


@router.get("/outcomes")
async def told(query: Annotated[Which, Query()], at: At) -> dict[str, Any]:
    """How well each deployment has done on each route, and at what cost, as far as outcomes are known."""
    wanted = query.filter(SPEND_DAYS)
    found = await at.store.database.run(lambda connection: worth(connection, wanted), timeout_s=REPORT_S)
    data = [
        {
            "route": each.route,
            "deployment": each.deployment,
            "requests": each.requests,
            "mean": each.mean,
            "error": each.error,
            "cost": money(each.cost),
        }
        for each in found
    ]
    return listed(data, since=wanted.since, until=wanted.until)

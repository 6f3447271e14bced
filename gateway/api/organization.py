"""`/v1/organization/costs` and `/v1/organization/usage/*`: OpenAI's reports of an organization, from our records.

A project is a tenant, a line item an upstream model.  Needs the admin key.  Buckets are days or hours of UTC.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from gateway.api.admin_shapes import Desk, desk
from gateway.errors import InvalidRequest, NotFound
from gateway.sql.records import Filter
from gateway.sql.spend import Sum, at_one_moment, spend
from gateway.types import NANO

router = APIRouter(prefix="/v1/organization")
At = Annotated[Desk, Depends(desk)]

REPORT_S = 30.0
WIDTHS = {"1d": ("day", 86400, 7, 31), "1h": ("hour", 3600, 24, 168)}
"""Bucket widths: grouping, seconds, buckets unless asked, buckets at most."""
FIELDS = {"project_id": "tenant", "user_id": "user", "api_key_id": "key", "model": "upstream_model"}
COST_FIELDS = {"project_id": "tenant", "api_key_id": "key", "user_id": "user", "line_item": "upstream_model"}
ENDPOINTS = {
    "completions": ("chat", "messages", "responses", "completions", "gemini"),
    "embeddings": ("embeddings",),
    "moderations": ("moderations",),
}


def _asked(fields: Mapping[str, str], widths: Iterable[str]) -> dict[str, Any]:
    """For the OpenAPI document: what the query may hold."""
    whole, text = {"type": "integer", "minimum": 0, "maximum": 2**40}, {"type": "array", "items": {"type": "string"}}
    schemas: dict[str, Any] = {
        "start_time": whole,
        "end_time": whole,
        "bucket_width": {"enum": list(widths)},
        "limit": {"type": "integer", "minimum": 1},
        "page": {"type": "string", "pattern": "^page_[0-9]{1,10}$"},
        "group_by": {"type": "array", "items": {"enum": list(fields)}},
        **{f"{name}s": text for name in fields},
    }
    found = [{"name": name, "in": "query", "schema": schema} for name, schema in schemas.items()]
    return {"parameters": [{**each, "required": each["name"] == "start_time"} for each in found]}


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks.  `since` and `until` are whole buckets, in unix seconds."""

    width: str
    since: int
    until: int
    limit: int
    group_by: tuple[str, ...]
    only: Mapping[str, frozenset[str]]  # field -> values

    @property
    def end(self) -> int:
        """Where this page ends."""
        return min(self.until, self.since + self.limit * WIDTHS[self.width][1])


@router.get("/costs", openapi_extra=_asked(COST_FIELDS, ("1d",)))
async def costs(request: Request, at: At) -> dict[str, Any]:
    """What was spent, by day."""
    question = _question(request, COST_FIELDS, ("1d",))

    def result(line: Sum, groups: Mapping[str, str | None]) -> dict[str, Any]:
        amount = {"value": line.cost / NANO, "currency": "usd", "nano_usd": line.cost}
        return {"object": "organization.costs.result", "amount": amount, **dict.fromkeys(COST_FIELDS), **groups}

    return await _page(at, question, COST_FIELDS, None, result)


@router.get("/usage/{kind}", openapi_extra=_asked(FIELDS, WIDTHS))
async def usage(kind: str, request: Request, at: At) -> dict[str, Any]:
    """What was used, by day or hour."""
    if kind not in ENDPOINTS:
        raise NotFound(f"There is no usage of {kind[:64]!r}; there is {', '.join(ENDPOINTS)}.")
    question = _question(request, FIELDS, tuple(WIDTHS))

    def result(line: Sum, groups: Mapping[str, str | None]) -> dict[str, Any]:
        counts = {"input_tokens": line.input_tokens, "num_model_requests": line.requests}
        if kind == "completions":
            counts |= {"output_tokens": line.output_tokens, "input_cached_tokens": line.cached_tokens}
        return {"object": f"organization.usage.{kind}.result", **counts, **dict.fromkeys(FIELDS), **groups}

    return await _page(at, question, FIELDS, ENDPOINTS[kind], result)


async def _page(
    at: Desk,
    question: Question,
    fields: Mapping[str, str],
    endpoints: tuple[str, ...] | None,
    result: Any,  # noqa: ANN401  # one of the two above
) -> dict[str, Any]:
    names = [fields[name] for name in question.group_by]
    kept = [fields[name] for name in question.only] + (["endpoint"] if endpoints else [])
    by = (WIDTHS[question.width][0], *dict.fromkeys([*names, *kept]))
    allowed = {fields[name]: values for name, values in question.only.items()}
    if endpoints:
        allowed["endpoint"] = frozenset(endpoints)
    lines = await at.store.database.run(
        lambda connection: _read(connection, Filter(since=question.since, until=question.end), by), timeout_s=REPORT_S
    )
    found: dict[tuple[int, tuple[str | None, ...]], Sum] = {}
    for line in lines:
        values = dict(zip(by, line.group, strict=True))
        if all(values[name] in wanted for name, wanted in allowed.items()):
            place = _start(values[by[0]] or ""), tuple(values[name] for name in names)
            found[place] = found[place] + line if place in found else line
    more = question.end < question.until
    return {
        "object": "page",
        "data": [_bucket(question, start, found, result) for start in _starts(question)],
        "has_more": more,
        "next_page": f"page_{question.end}" if more else None,
    }


def _read(connection: Any, wanted: Filter, by: tuple[str, ...]) -> list[Sum]:  # noqa: ANN401  # SQLAlchemy's
    at_one_moment(connection)
    return spend(connection, wanted, by, None)


def _bucket(question: Question, start: int, found: Mapping[Any, Sum], result: Any) -> dict[str, Any]:  # noqa: ANN401  # as above
    lines = [
        result(line, dict(zip(question.group_by, group, strict=True)))
        for (begun, group), line in found.items()
        if begun == start
    ]
    end = start + WIDTHS[question.width][1]
    return {"object": "bucket", "start_time": start, "end_time": end, "results": lines}


def _starts(question: Question) -> Iterator[int]:
    return iter(range(question.since, question.end, WIDTHS[question.width][1]))


def _start(shown: str) -> int:
    """The bucket's beginning, from a day or an hour as reports show them."""
    return int(datetime.fromisoformat(shown if "T" in shown else f"{shown}T00:00Z").timestamp())


def _question(request: Request, fields: Mapping[str, str], widths: tuple[str, ...]) -> Question:
    """The query of the request, arrays as `name` or `name[]`.  Raises InvalidRequest."""
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        given.setdefault(name.removesuffix("[]"), []).append(value)
    width = given.get("bucket_width", ["1d"])[-1]
    if width not in widths:
        raise InvalidRequest(f"`bucket_width` must be {' or '.join(widths)}.", param="bucket_width")
    _, seconds, usual, most = WIDTHS[width]
    if "start_time" not in given:
        raise InvalidRequest("`start_time` is required, in unix seconds.", param="start_time")
    since = _whole(given, "start_time", 0, 0, 2**40) // seconds * seconds
    until = -(-_whole(given, "end_time", int(time.time()), 0, 2**40) // seconds) * seconds
    limit = _whole(given, "limit", usual, 1, 180 if widths == ("1d",) else most)
    if page := given.get("page"):
        since = max(since, _whole({"page": [page[-1].removeprefix("page_")]}, "page", since, 0, 2**40))
    group_by = tuple(dict.fromkeys(given.get("group_by", [])))
    if unknown := [name for name in group_by if name not in fields]:
        raise InvalidRequest(
            f"`group_by` cannot be {unknown[0][:64]!r}; there is {', '.join(fields)}.", param="group_by"
        )
    only = {name: frozenset(given[f"{name}s"]) for name in fields if f"{name}s" in given}
    return Question(width, since, max(since, until), limit, group_by, only)


def _whole(given: Mapping[str, list[str]], name: str, usual: int, least: int, most: int) -> int:
    text = given.get(name, [str(usual)])[-1]
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise InvalidRequest(f"`{name}` must be a whole number from {least} to {most}.", param=name)
    return int(text)

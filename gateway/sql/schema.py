"""The tables.  Money is BIGINT nano-dollars, times are unix seconds; the migrations build exactly this."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from gateway.savings import Saving

metadata = MetaData()

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _json(name: str) -> Column[Any]:
    return Column(name, Json, nullable=False)


def _sums() -> list[Column[Any]]:
    """What is summed up of records, whatever by."""
    money = ("cost", "unknown", "presumed", "baseline", "compared", "overhead", "shadow")
    saved = (f"saved_{cause}" for cause in Saving)
    tokens = ("input_tokens", "cached_tokens", "output_tokens", "estimated", "errors")
    times = (Column(name, Double, nullable=False) for name in ("first", "last"))
    return [*map(_count, ("requests", *money, *saved, *tokens)), *times]


records = Table(
    "records",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("at", Double, nullable=False),
    _count("hour"),  # whole hours since 1970, so that days and hours group alike in both databases
    _text("tenant"),
    _text("key"),
    _text("endpoint"),
    _text("model"),
    _text("route"),
    _text("deployment"),
    _text("provider"),
    _text("upstream_model"),
    _text("response_model"),
    _text("outcome"),
    Column("stream", Boolean, nullable=False),
    _text("user"),
    _text("task"),
    _json("tags"),
    _json("tokens"),
    _json("fees"),
    _count("input_tokens"),  # sums over `tokens`, for reports
    _count("cached_tokens"),
    _count("output_tokens"),
    Column("estimated", Boolean, nullable=False),
    Column("cost", BigInteger),  # NULL: unknown, which is not zero
    _json("components"),
    Column("reported_cost", BigInteger),
    Column("calculated_cost", BigInteger),
    Column("rerated_cost", BigInteger),  # at prices corrected since; see `tollgate prices rerate`
    _text("service_tier"),
    Column("baseline_cost", BigInteger),
    *(_count(f"saved_{cause}") for cause in Saving),  # before overhead; below 0: lost
    _count("overhead_cost"),
    _count("reserved"),
    Column("status", Integer, nullable=False),
    _text("error"),
    _text("finish_reason"),
    Column("attempts", Integer, nullable=False),
    _count("latency_ms"),
    _count("first_token_ms"),
    _count("tokens_estimated"),
    _text("reasons"),
    _json("flags"),
    _text("shadow_of"),  # the id of the record whose request this one repeats
    Index("records_at", "at", "id"),
    Index("records_tenant_at", "tenant", "at", "id"),
    Index("records_deployment_at", "deployment", "at"),
    Index("records_task", "task", "at"),
)

hourly = Table(
    "hourly",  # records summed by hour and what few values have; true for every hour that is not in stale_hours
    metadata,
    Column("hour", BigInteger, nullable=False),
    _text("tenant"),
    _text("key"),
    _text("endpoint"),
    _text("model"),
    _text("route"),
    _text("deployment"),
    _text("provider"),
    _text("upstream_model"),
    _text("outcome"),
    Column("team", Text),  # tags; NULL where there is none
    Column("feature", Text),
    Column("cost_center", Text),
    *_sums(),
    Index("hourly_hour", "hour"),
    Index("hourly_tenant_hour", "tenant", "hour"),
)

stale_hours = Table(
    "stale_hours",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    _count("changes"),
)

daily = Table(
    "daily",  # records summed by day, tenant and one thing that many values have; for the kinds in daily_kinds
    metadata,
    Column("day", BigInteger, nullable=False),
    _text("kind"),  # user, task, tag:NAME
    Column("value", Text),  # NULL: records without such a tag
    _text("tenant"),
    *_sums(),
    Index("daily_kind_day", "kind", "day"),
    Index("daily_kind_tenant_day", "kind", "tenant", "day"),
    Index("daily_kind_value", "kind", "value", "tenant", "day", "cost"),
)

daily_kinds = Table(
    "daily_kinds",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
)

stale_days = Table(
    "stale_days",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    _count("changes"),
)

cache_breaks = Table(
    "cache_breaks",  # what keeps prompt caches from being read: estimates
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("deployment", Text, primary_key=True),
    Column("cause", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("block", Integer, primary_key=True, autoincrement=False),
    _count("token"),
    _count("requests"),
    _count("tokens"),
    _count("cost"),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    _json("models"),
    _json("tags"),
    _text("zone"),
    _text("on_ledger_outage"),
    Column("drop_params", Boolean, nullable=False),
    Column("suspended", Boolean, nullable=False),
    Column("request_cost_max", BigInteger),
    Column("endpoints", Json),  # NULL: all
    Column("tiers", Json),  # NULL: none
    Column("regions", Json),  # NULL: anywhere
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    _text("name"),
    Column("digest", LargeBinary, nullable=False, unique=True),  # SHA-256 of the secret
    _json("models"),
    Column("endpoints", Json),  # NULL: all
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Index("keys_tenant", "tenant"),
)

limits = Table(
    "limits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, ForeignKey("tenants.id", ondelete="CASCADE")),  # NULL: of everyone
    Column("key", Text, ForeignKey("keys.id", ondelete="CASCADE")),  # NULL: of the tenant
    _text("account"),
    _text("unit"),
    Column("amount", BigInteger, nullable=False),
    _text("every"),
    _count("rolling_s"),
    _text("zone"),
    _text("action"),
    _text("of"),
    Column("until", Double),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Index("limits_tenant", "tenant"),
    Index("limits_key", "key"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    _text("actor"),  # where the request came from
    _text("action"),
    _text("subject"),
    Column("before", Json),
    Column("after", Json),
)

revision = Table(
    "revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),  # what happened, where and in which window: each is told once
    Column("at", Double, nullable=False),
    _text("kind"),
    _text("subject"),
    _json("facts"),
    Index("alerts_at", "at"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("kind", Text, primary_key=True),  # request or task
    Column("subject", Text, primary_key=True),  # its id
    Column("source", Text, primary_key=True),  # who says so
    Column("at", Double, nullable=False),
    Column("success", Boolean),  # NULL: not said
    Column("score", Double),
    Column("resolved", Boolean),
    Index("outcomes_at", "at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    _text("kind"),
    _text("tenant"),
    _text("state"),
    Column("created", Double, nullable=False),
    Column("next_at", Double),  # NULL: it is over
    _text("lease"),  # who works on it
    Column("lease_until", Double, nullable=False),
    Column("cancel_at", Double),  # when it was asked to end
    Column("body", LargeBinary, nullable=False),  # what its kind needs, as JSON
    Index("jobs_next_at", "next_at"),
    Index("jobs_tenant", "tenant", "kind", "created"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    _text("tenant"),
    _text("purpose"),
    _text("filename"),
    Column("bytes", BigInteger),  # NULL: it is being written
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Index("files_tenant", "tenant", "created"),
    Index("files_expires", "expires"),
)

file_parts = Table(
    "file_parts",
    metadata,
    Column("file", Text, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

readings = Table(
    "readings",  # what is kept of requests that may be learned from: numbers, never words
    metadata,
    Column("id", Text, primary_key=True),  # the record's
    Column("at", Double, nullable=False),
    _text("tenant"),
    _text("route"),
    _json("words"),
    _json("shape"),
    _count("length"),
    _json("verdicts"),  # of a cascade's judge, by deployment: 1 or 0
    Index("readings_at", "at"),
)

habits = Table(
    "habits",  # how much each deployment says and thinks, as traffic has taught
    metadata,
    Column("deployment", Text, primary_key=True),
    Column("at", Double, nullable=False),
    _json("known"),
)

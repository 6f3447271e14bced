"""What happened, and what administrators made."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def _text(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), server_default="", nullable=False) for name in names]


def _count(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in names]


def _json(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, JSON, nullable=False) for name in names]


def _need(kind: type[sa.types.TypeEngine[Any]], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=False) for name in names]


def _may(kind: type[sa.types.TypeEngine[Any]], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=True) for name in names]


def upgrade() -> None:
    _records()
    _tenants()
    _keys()
    _limits()
    _audit()
    _revision()
    op.execute("INSERT INTO revision (id, value) VALUES (1, 0)")


def downgrade() -> None:
    for table in ("limits", "keys", "tenants", "records", "audit", "revision"):
        op.drop_table(table)


def _records() -> None:
    op.create_table(
        "records",
        *_need(sa.Text, "id"),
        *_need(sa.Integer, "version"),
        *_need(sa.Double, "at"),
        *_count("hour"),
        *_text(
            "tenant",
            "key",
            "endpoint",
            "model",
            "route",
            "deployment",
            "provider",
            "upstream_model",
            "response_model",
            "outcome",
        ),
        *_need(sa.Boolean, "stream"),
        *_text("user", "task"),
        *_json("tags", "tokens", "fees"),
        *_count("input_tokens", "cached_tokens", "output_tokens"),
        *_need(sa.Boolean, "estimated"),
        *_may(sa.BigInteger, "cost"),
        *_json("components"),
        *_may(sa.BigInteger, "reported_cost", "baseline_cost"),
        *_count("overhead_cost", "reserved"),
        *_need(sa.Integer, "status"),
        *_text("error", "finish_reason"),
        *_need(sa.Integer, "attempts"),
        *_count("latency_ms", "first_token_ms", "tokens_estimated"),
        *_text("reasons"),
        *_json("flags"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("records_at", "records", ["at", "id"])
    op.create_index("records_deployment_at", "records", ["deployment", "at"])
    op.create_index("records_task", "records", ["task", "at"])
    op.create_index("records_tenant_at", "records", ["tenant", "at", "id"])


def _tenants() -> None:
    op.create_table(
        "tenants",
        *_need(sa.Text, "id"),
        *_json("models", "tags"),
        *_text("zone", "on_ledger_outage"),
        *_need(sa.Boolean, "drop_params", "suspended"),
        *_may(sa.BigInteger, "request_cost_max"),
        *_need(sa.Double, "created", "updated"),
        sa.PrimaryKeyConstraint("id"),
    )


def _keys() -> None:
    op.create_table(
        "keys",
        *_need(sa.Text, "id", "tenant"),
        *_text("name"),
        *_need(sa.LargeBinary, "digest"),
        *_json("models"),
        *_need(sa.Double, "created"),
        *_may(sa.Double, "expires", "revoked"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index("keys_tenant", "keys", ["tenant"])


def _limits() -> None:
    op.create_table(
        "limits",
        *_need(sa.Text, "id", "tenant"),
        *_may(sa.Text, "key"),
        *_text("account", "unit"),
        *_need(sa.BigInteger, "amount"),
        *_text("every"),
        *_count("rolling_s"),
        *_text("zone", "action"),
        *_need(sa.Double, "created", "updated"),
        sa.ForeignKeyConstraint(["key"], ["keys.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("limits_key", "limits", ["key"])
    op.create_index("limits_tenant", "limits", ["tenant"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        *_need(sa.Double, "at"),
        *_text("actor", "action", "subject"),
        sa.Column("before", JSON, nullable=True),
        sa.Column("after", JSON, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def _revision() -> None:
    op.create_table(
        "revision",
        *_need(sa.Integer, "id"),
        *_need(sa.BigInteger, "value"),
        sa.PrimaryKeyConstraint("id"),
    )

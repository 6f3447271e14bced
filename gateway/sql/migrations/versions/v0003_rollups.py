"""Sums by hour, and which of them are not true any more: at first, all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXTS = ["tenant", "key", "endpoint", "model", "route", "deployment", "provider", "upstream_model", "outcome"]
TAGS = ["team", "feature", "cost_center"]
FIGURES = ["requests", "cost", "unknown", "presumed", "baseline", "compared", "overhead"]
FIGURES += ["input_tokens", "cached_tokens", "output_tokens", "estimated", "errors"]


def upgrade() -> None:
    """Adds them."""
    op.create_table(
        "hourly",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), server_default="", nullable=False) for name in TEXTS),
        *(sa.Column(name, sa.Text()) for name in TAGS),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in FIGURES),
        sa.Column("first", sa.Double(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
    )
    op.create_index("hourly_hour", "hourly", ["hour"])
    op.create_index("hourly_tenant_hour", "hourly", ["tenant", "hour"])
    op.create_table(
        "stale_hours",
        sa.Column("hour", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("changes", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.execute("INSERT INTO stale_hours (hour) SELECT DISTINCT hour FROM records")

"""Sums by day of users, tasks and tags: at first, no day has any."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CAUSES = ("reported", "batch", "tier", "caching", "arbitrage", "routing", "caps")
FIGURES = ["requests", "cost", "unknown", "presumed", "baseline", "compared", "overhead", "shadow"]
FIGURES += [f"saved_{cause}" for cause in CAUSES]
FIGURES += ["input_tokens", "cached_tokens", "output_tokens", "estimated", "errors"]


def upgrade() -> None:
    """Adds them."""
    op.create_table(
        "daily",
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("value", sa.Text()),
        sa.Column("tenant", sa.Text(), server_default="", nullable=False),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in FIGURES),
        sa.Column("first", sa.Double(), nullable=False),
        sa.Column("last", sa.Double(), nullable=False),
    )
    op.create_index("daily_kind_day", "daily", ["kind", "day"])
    op.create_index("daily_kind_tenant_day", "daily", ["kind", "tenant", "day"])
    op.create_table(
        "daily_kinds",
        sa.Column("day", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text(), primary_key=True),
    )
    op.create_table(
        "stale_days",
        sa.Column("day", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("changes", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.execute("INSERT INTO stale_days (day) SELECT DISTINCT hour / 24 FROM records")

"""Sums by day are of more kinds than they were: every day that was summed is summed again."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Marks them."""
    op.create_index("daily_kind_value", "daily", ["kind", "value", "tenant", "day", "cost"])
    op.execute("INSERT INTO stale_days (day) SELECT DISTINCT day FROM daily_kinds WHERE true ON CONFLICT DO NOTHING")

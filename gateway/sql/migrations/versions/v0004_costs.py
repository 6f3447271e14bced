"""What was calculated beside what was charged, and what a correction of prices makes of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds them; nothing is known of older records."""
    op.add_column("records", sa.Column("calculated_cost", sa.BigInteger()))
    op.add_column("records", sa.Column("rerated_cost", sa.BigInteger()))
    op.add_column("records", sa.Column("service_tier", sa.Text(), server_default="", nullable=False))

"""What keeps prompt caches from being read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds it."""
    op.create_table(
        "cache_breaks",
        sa.Column("hour", sa.BigInteger(), primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "route", "deployment", "cause", "role")),
        sa.Column("block", sa.Integer(), primary_key=True, autoincrement=False),
        *(
            sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
            for name in ("token", "requests", "tokens", "cost")
        ),
    )

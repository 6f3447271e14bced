"""How requests and tasks turned out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds them."""
    op.create_table(
        "outcomes",
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("subject", sa.Text(), primary_key=True),
        sa.Column("source", sa.Text(), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("success", sa.Boolean()),
        sa.Column("score", sa.Double()),
        sa.Column("resolved", sa.Boolean()),
    )
    op.create_index("outcomes_at", "outcomes", ["at"])

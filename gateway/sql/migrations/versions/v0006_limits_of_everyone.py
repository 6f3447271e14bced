"""Limits of everyone may be made by administrators: they have no tenant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A limit may belong to nobody in particular."""
    with op.batch_alter_table("limits") as limits:
        limits.alter_column("tenant", existing_type=sa.Text(), nullable=True)

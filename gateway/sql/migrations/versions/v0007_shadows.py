"""Which records are of the gateway's own questions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Older records are all of clients."""
    op.add_column("records", sa.Column("shadow_of", sa.Text(), server_default="", nullable=False))

"""What was saved, by cause."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

CAUSES = ("reported", "batch", "tier", "caching", "arbitrage", "routing", "caps")


def upgrade() -> None:
    """Adds it; records from before have nothing to tell."""
    for table in ("records", "hourly"):
        for cause in CAUSES:
            op.add_column(table, _count(f"saved_{cause}"))
    op.add_column("hourly", _count("shadow"))


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)

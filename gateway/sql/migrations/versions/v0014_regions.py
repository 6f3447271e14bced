"""Where a tenant's requests may be served."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds it; NULL: anywhere."""
    op.add_column("tenants", sa.Column("regions", sa.JSON().with_variant(JSONB(), "postgresql")))

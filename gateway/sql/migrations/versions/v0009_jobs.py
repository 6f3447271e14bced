"""What goes on after its request is over, and the files it reads and writes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds them."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("tenant", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), server_default="", nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("lease", sa.Text(), server_default="", nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("cancel_at", sa.Double()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("jobs_next_at", "jobs", ["next_at"])
    op.create_index("jobs_tenant", "jobs", ["tenant", "kind", "created"])
    op.create_table(
        "files",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("tenant", sa.Text(), server_default="", nullable=False),
        sa.Column("purpose", sa.Text(), server_default="", nullable=False),
        sa.Column("filename", sa.Text(), server_default="", nullable=False),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
    )
    op.create_index("files_tenant", "files", ["tenant", "created"])
    op.create_index("files_expires", "files", ["expires"])
    op.create_table(
        "file_parts",
        sa.Column("file", sa.Text(), sa.ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )

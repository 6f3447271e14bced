"""Brings a database to the newest schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from gateway.sql.database import engine

LOCK = 7_011_655_283  # any number that nobody else uses for an advisory lock in this database


def upgrade(database_url: str) -> None:
    """Applies what is missing, in one transaction under a lock: workers and replicas may all start at once.  Blocks.

    Raises sqlalchemy.exc.OperationalError when the database cannot be reached.
    """
    made = engine(database_url, 1)
    try:
        with made.connect().execution_options(write=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            command.upgrade(config(connection), "head")
    finally:
        made.dispose()


def config(connection: Connection) -> Config:
    """Alembic's configuration for this package's migrations on an open connection."""
    found = Config(attributes={"connection": connection})
    found.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return found

"""The write-ahead log of an SQLite file, which several processes may turn on at once."""

from __future__ import annotations

import sqlite3
import time


def write_ahead(connection: sqlite3.Connection, within_s: float) -> None:
    """Turns the write-ahead log on.  That needs the file alone for a moment, and SQLite does not wait for it by itself.

    Raises sqlite3.OperationalError when others still hold the file after `within_s`.
    """
    ends = time.monotonic() + within_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= ends:
                raise
            time.sleep(0.005)
        else:
            return

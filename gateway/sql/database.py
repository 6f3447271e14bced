"""Connections: blocking SQL in threads of its own, every call bounded in time, nothing of it on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError as PoolTimeout

from gateway.sql.write_ahead import write_ahead

T = TypeVar("T")

CONNECT_S = 5


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or did not answer in time.  Nothing was decided: ask again later."""


class Database:
    """A small pool of connections and as many threads."""

    def __init__(self, url: str, threads: int = 2) -> None:
        self.engine = engine(url, threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sql")

    async def run(self, work: Callable[[Connection], T], *, timeout_s: float = 15.0, write: bool = False) -> T:
        """What `work` returns, in one transaction.  `work` may run twice if a stale connection breaks under it.

        Raises DatabaseUnavailable, or what the database says of the content.
        """
        attempt = _Attempt()
        loop = asyncio.get_running_loop()
        waiting = loop.run_in_executor(self._threads, self._transact, work, attempt, timeout_s, write)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(waiting)
        except TimeoutError as error:
            waiting.add_done_callback(_retrieve)
            attempt.abort()
            raise DatabaseUnavailable(f"The database did not answer within {timeout_s:g} s.") from error
        except asyncio.CancelledError:
            waiting.add_done_callback(_retrieve)
            attempt.abort()
            raise
        except (InterfaceError, OperationalError, PoolTimeout) as error:
            raise DatabaseUnavailable(f"The database cannot serve: {_reason(error)}") from error

    def close(self) -> None:
        """Gives the connections back.  Calls that are under way may end as they like."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()

    def _transact(self, work: Callable[[Connection], T], attempt: _Attempt, timeout_s: float, write: bool) -> T:
        try:
            return self._once(work, attempt, timeout_s, write)
        except DBAPIError as error:
            if not error.connection_invalidated or attempt.committing or attempt.aborted:
                raise
        return self._once(work, attempt, timeout_s, write)

    def _once(self, work: Callable[[Connection], T], attempt: _Attempt, timeout_s: float, write: bool) -> T:
        with self.engine.connect() as connection, attempt.on(connection):
            with connection.execution_options(write=write).begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(text(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}"))
                result = work(connection)
                attempt.committing = True
            return result


class _Attempt:
    """One transaction that another thread may have to break off: a hung network never returns by itself."""

    def __init__(self) -> None:
        self.committing = False
        self.aborted = False
        self._lock = threading.Lock()
        self._raw: Any = None

    @contextmanager
    def on(self, connection: Connection) -> Iterator[None]:
        with self._lock:
            if self.aborted:
                raise DatabaseUnavailable("Nobody waits for it any more.")
            self._raw = connection.connection.dbapi_connection
        try:
            yield
        finally:
            with self._lock:
                self._raw = None

    def abort(self) -> None:
        with self._lock:
            self.aborted = True
            if self._raw is None:
                return
            if hasattr(self._raw, "interrupt"):
                self._raw.interrupt()
                return
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._raw.fileno())) as channel:
                channel.shutdown(socket.SHUT_RDWR)


def engine(url: str, connections: int = 2) -> Engine:
    """An engine for sqlite:///FILE or postgresql://...; ValueError names what else was asked for."""
    address = make_url(url)
    kind = address.get_backend_name()
    if kind == "sqlite":
        return _sqlite(address)
    if kind in ("postgresql", "postgres"):
        return create_engine(
            address.set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=CONNECT_S,
            connect_args={"connect_timeout": CONNECT_S, "prepare_threshold": None},  # poolers lose prepared statements
        )
    raise ValueError(f"database {kind!r} is not known; write sqlite:///FILE or postgresql://...")


def _sqlite(address: URL) -> Engine:
    made = create_engine(address.set(drivername="sqlite+pysqlite"), connect_args={"timeout": CONNECT_S})

    @event.listens_for(made, "connect")
    def durable(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # BEGIN is ours: the driver's would not take the write lock
        write_ahead(connection, CONNECT_S)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return made


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()

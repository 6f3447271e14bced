"""How the process logs: one JSON object a line, or plain lines where a person is watching.

Tracebacks have no local variables: those of a request hold keys and what its client wrote, and to render them would
hold up every other request.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

import orjson
import structlog
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict, Processor

from gateway.types import Record

_write: Callable[[str], None] | None = None
"""Takes a line for a machine."""


def configure(stream: TextIO = sys.stderr) -> None:
    """Everything logged from now on goes to `stream`, from level info."""
    global _write  # noqa: PLW0603  # one process has one log
    person, factory = stream.isatty(), structlog.WriteLoggerFactory(stream)
    _write = None if person else factory().msg
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(_for_people() if person else _for_machines()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def finished(record: Record) -> None:
    """One line for a request that reached a provider.  The id is the reply's, the record's and the trace's."""
    _tell(
        {
            "event": "request",
            "request_id": record.id,
            "tenant": record.tenant,
            "key": record.key,
            "endpoint": record.endpoint,
            "model": record.model,
            "route": record.route,
            "deployment": record.deployment,
            "outcome": record.outcome,
            "status": record.status,
            "error": record.error,
            "tokens": record.tokens,
            "cost_nano_usd": record.cost,
            "attempts": record.attempts,
            "latency_ms": record.latency_ms,
            "first_token_ms": record.first_token_ms,
        }
    )


def refused(request_id: str, tenant: str, endpoint: str, status: int, error: str) -> None:
    """One line for a request that no provider saw; `error` is the code, never the words: they may quote the client."""
    words = {"request_id": request_id, "tenant": tenant, "endpoint": endpoint, "status": status, "error": error}
    _tell({"event": "request refused", **words})


def _tell(event: EventDict) -> None:
    """At level info; to a machine past structlog's chain, which takes as long as to settle a request."""
    if not structlog.is_configured():  # embedded, without logs of ours
        return
    if _write is None:
        structlog.get_logger().info(**event)
        return
    event.update(get_contextvars(), level="info", timestamp=datetime.now(UTC))
    _write(_line(None, "info", event))


def _for_machines() -> list[Processor]:
    return [structlog.processors.format_exc_info, _stamp, _line]


def _for_people() -> list[Processor]:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return [stamp, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _stamp(logger: object, method: str, event: EventDict) -> EventDict:  # noqa: ARG001  # a processor's signature
    event["timestamp"] = datetime.now(UTC)
    return event


def _line(logger: object, method: str, event: EventDict) -> str:  # noqa: ARG001  # a processor's signature
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z).decode()

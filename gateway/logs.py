"""How the process logs: one JSON object a line, or plain lines where a person is watching.

Tracebacks have no local variables: those of a request hold keys and what its client wrote, and to render them would
hold up every other request.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from gateway.types import Record

STAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


def configure(stream: TextIO = sys.stderr) -> None:
    """Everything logged from now on goes to `stream`, from level info."""
    person = stream.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            STAMP,
            *(_for_people() if person else _for_machines()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def finished(record: Record) -> None:
    """One line for a request that reached a provider.  The id is the reply's, the record's and the trace's."""
    if not structlog.is_configured():  # embedded, without logs of ours
        return
    structlog.get_logger().info(
        "request",
        request_id=record.id,
        tenant=record.tenant,
        key=record.key,
        endpoint=record.endpoint,
        model=record.model,
        route=record.route,
        deployment=record.deployment,
        outcome=record.outcome,
        status=record.status,
        error=record.error,
        tokens=record.tokens,
        cost_nano_usd=record.cost,
        attempts=record.attempts,
        latency_ms=record.latency_ms,
        first_token_ms=record.first_token_ms,
    )


def refused(request_id: str, tenant: str, endpoint: str, status: int, error: str) -> None:
    """One line for a request that no provider saw; `error` is the code, never the words: they may quote the client."""
    if structlog.is_configured():
        words = {"request_id": request_id, "tenant": tenant, "endpoint": endpoint, "status": status, "error": error}
        structlog.get_logger().info("request refused", **words)


def _for_machines() -> list[Processor]:
    return [structlog.processors.format_exc_info, _line]


def _for_people() -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _line(logger: object, method: str, event: EventDict) -> str:  # noqa: ARG001  # a processor's signature
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()

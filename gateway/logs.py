"""How the process logs: one JSON object a line, or plain lines where a person is watching.

Tracebacks have no local variables: those of a request hold keys and what its client wrote, and to render them would
hold up every other request.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from gateway.types import Record


def configure(stream: TextIO = sys.stderr) -> None:
    """Everything logged from now on goes to `stream`, from level info."""
    person = stream.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
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
    _logger().info(
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
        _logger().info("request refused", **words)


def _logger() -> FilteringBoundLogger:
    return _bound(structlog.get_config()["logger_factory"])


@lru_cache(maxsize=1)
def _bound(factory: object) -> FilteringBoundLogger:  # noqa: ARG001  # tells one configuration from the next
    """Made once and not for each request: that takes as long as the line itself."""
    logger: FilteringBoundLogger = structlog.get_logger().bind()
    return logger


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

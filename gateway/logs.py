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

STAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


def configure(stream: TextIO = sys.stderr) -> None:
    """Everything logged from now on goes to `stream`, from level info."""
    person = stream.isatty()
    structlog.configure(
        processors=[structlog.processors.add_log_level, STAMP, *(_for_people() if person else _for_machines())],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )


def _for_machines() -> list[Processor]:
    return [structlog.processors.format_exc_info, _line]


def _for_people() -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _line(logger: object, method: str, event: EventDict) -> str:  # noqa: ARG001  # a processor's signature
    return orjson.dumps(event, default=str).decode()

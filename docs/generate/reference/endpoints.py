"""What the gateway answers, from its two OpenAPI descriptions."""

from __future__ import annotations

from typing import Any

from gateway.api import openapi
from gateway.api.admin import admin_app
from reference.table import code, table

INTRODUCTION = """
Keys stand in `Authorization: Bearer KEY` or `x-api-key: KEY`.

## For clients

The whole description, with headers, fields and refusals, is at `/openapi.json`; no key is needed to read it.
"""
ADMIN = """
## For administrators

With the `admin_key` of the configuration. The whole description, with every field, is at `/admin/openapi.json`.
"""
COLUMNS = ("operation", "what it does")


def page() -> str:
    """Both tables."""
    clients, administrators = (table(COLUMNS, rows(each)) for each in (openapi.document(), admin_document()))
    return f"{INTRODUCTION}\n{clients}\n{ADMIN}\n{administrators}"


def rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Method and path, and the first sentence of every operation."""
    return [
        (code(f"{method.upper()} {path}"), _told(operation))
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def admin_document() -> dict[str, Any]:
    """The admin API's."""
    return admin_app(None, None, None).openapi()  # type: ignore[arg-type]  # nothing is asked of them


def _told(operation: dict[str, Any]) -> str:
    return str(operation.get("description") or operation.get("summary", "")).partition("\n")[0]

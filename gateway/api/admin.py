"""`/admin/v1`: tenants, keys and budgets to make and change; spend, records, tasks and deployments to read.

`gateway.api.guard` stands before it, and imports it when it is first asked.
"""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from gateway.api import (
    admin_batches,
    admin_budgets,
    admin_doctor,
    admin_ledger,
    admin_outcomes,
    admin_reports,
    admin_savings,
    admin_tenants,
    admin_units,
    openapi,
    organization,
)
from gateway.api.admin_shapes import Desk
from gateway.api.ask import new_request_id
from gateway.api.errors import body_of, headers_of as error_headers, status_of
from gateway.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unavailable,
)
from gateway.ledger.base import Ledger
from gateway.site import Sites
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.tenants import Store

log = structlog.get_logger()

ROUTERS = (
    admin_batches.router,
    admin_tenants.router,
    admin_budgets.router,
    admin_ledger.router,
    admin_reports.router,
    admin_outcomes.router,
    admin_units.router,
    admin_savings.router,
    admin_doctor.router,
    organization.router,
)


def admin_app(store: Store, ledger: Ledger, sites: Sites) -> FastAPI:
    """The ASGI application for every path below /admin/."""
    app = _Described(title="Tollgate admin", openapi_url="/admin/openapi.json", docs_url=None, redoc_url=None)
    app.state.desk = Desk(store, ledger, sites)
    for router in ROUTERS:
        app.include_router(router)
    for kind, handler in (
        (GatewayError, _known),
        (RequestValidationError, _invalid),
        (HTTPException, _http),
        (DatabaseUnavailable, _away),
        (Exception, _bug),
    ):
        app.add_exception_handler(kind, handler)
    return app


class _Described(FastAPI):
    """Its document tells of the refusals that it really gives."""

    def openapi(self) -> dict[str, Any]:
        """See FastAPI."""
        return openapi.administered(super().openapi())


def _answer(error: GatewayError) -> Response:
    request_id = new_request_id()
    headers = {name.decode(): value.decode() for name, value in error_headers(error, request_id)}
    return Response(body_of(error, None, request_id), status_of(error), headers)


async def _known(request: Request, error: Exception) -> Response:  # noqa: ARG001  # FastAPI's signature
    return _answer(error if isinstance(error, GatewayError) else InternalError(str(error)))


async def _invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001  # FastAPI's signature
    found = error.errors() if isinstance(error, RequestValidationError) else []
    problems = [_problem(dict(each)) for each in found]
    words = "; ".join(f"`{place}`: {message}" if place else message for place, message in problems)
    return _answer(InvalidRequest(words or "The request is not valid.", param=problems[0][0] if problems else None))


async def _http(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    path = request.url.path[:200]
    if status == 405:  # HTTP's own number
        return _answer(MethodNotAllowed(path, _methods(request)))
    if status == 404:  # HTTP's own number
        return _answer(NotFound(f"There is nothing at {path!r}."))
    return _answer(InvalidRequest(str(getattr(error, "detail", error))))


def _methods(request: Request) -> set[str]:
    """What the path takes; the routes of one path are one for each method."""
    routes = (route for router in ROUTERS for route in router.routes if isinstance(route, Route))
    found = [route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return set().union(*found)


async def _away(request: Request, error: Exception) -> Response:  # noqa: ARG001  # FastAPI's signature
    return _answer(Unavailable(str(error), retry_after_s=5.0))


async def _bug(request: Request, error: Exception) -> Response:
    log.error("bug", path=request.url.path, exc_info=error)
    return _answer(InternalError("Something went wrong in the gateway; its log says what."))


def _problem(error: dict[str, Any]) -> tuple[str, str]:
    """Where and what, from one of pydantic's errors; never the value, which may be a secret."""
    place = ".".join(str(part) for part in error["loc"][1:])
    match error["type"]:
        case "json_invalid":
            return "", f"The body is not valid JSON: {error.get('ctx', {}).get('error', '')} (character {place})."
        case "missing":
            return place, "is required" if place else "A JSON body is required."
        case "model_attributes_type" if not place:
            return "", "The body must be a JSON object, sent with `content-type: application/json`."
        case "extra_forbidden":
            return place, "there is no such field"
    return place, str(error["msg"]).removeprefix("Value error, ")

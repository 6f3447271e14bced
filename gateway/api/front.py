"""The ASGI application: a table from path to endpoint.  No middleware; FastAPI carries what is not the hot path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.api.ask import new_request_id
from gateway.api.errors import refuse
from gateway.api.reply import ASGISend, Receive, Reply
from gateway.errors import GatewayError, MethodNotAllowed, NotFound
from gateway.types import Format

Endpoint = Callable[[dict[str, Any], Receive, ASGISend], Awaitable[None]]


class Front:
    """Dispatches by exact path, then by the longest prefix that ends in a slash."""

    def __init__(self, endpoints: Mapping[str, Mapping[str, Endpoint]], prefixes: Mapping[str, Endpoint]) -> None:
        self.endpoints = endpoints  # path -> method -> endpoint
        self.prefixes = dict(sorted(prefixes.items(), key=lambda item: -len(item[0])))

    def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> Awaitable[None]:
        """One HTTP request."""
        path: str = scope["path"]
        methods = self.endpoints.get(path)
        if methods is not None:
            endpoint = methods.get(scope["method"])
            if endpoint is not None:
                return endpoint(scope, receive, send)
            return self.refuse(MethodNotAllowed(path, methods), path, send)
        for prefix, endpoint in self.prefixes.items():
            if path.startswith(prefix) or path == prefix[:-1]:
                return endpoint(scope, receive, send)
        return self.refuse(NotFound(f"There is nothing at {path[:200]!r}.{self.hint(path)}"), path, send)

    def hint(self, path: str) -> str:
        """The usual mistake is a base URL with or without /v1."""
        for candidate in (f"/v1{path}", path.replace("/v1/v1/", "/v1/")):
            if candidate in self.endpoints:
                return f" Did you mean {candidate}? Check the client's base_url."
        return ""

    async def refuse(self, error: GatewayError, path: str, send: ASGISend) -> None:
        """The error in the shape of the API the path belongs to."""
        shape = Format.MESSAGES if path.startswith("/v1/messages") else None
        await refuse(Reply(send), error, shape, new_request_id())

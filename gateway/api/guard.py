"""The door of the admin API: lets nothing through but requests with the admin key."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from gateway.api.ask import headers_of, new_request_id, secret_of
from gateway.api.errors import refuse
from gateway.api.front import Endpoint
from gateway.api.reply import ASGISend, Receive, Reply
from gateway.errors import GatewayError, NotFound, Unauthorized
from gateway.tenants import hash_key


class Guarded:
    """An ASGI application that is made for the first request with the key, in a thread.

    FastAPI and the shapes of the admin API are a third of all there is to import: no start need wait for them.
    """

    def __init__(self, admin_key: str | None, make: Callable[[], Endpoint]) -> None:
        self._digest = hash_key(admin_key) if admin_key else None
        self._make = make
        self._making = asyncio.Lock()
        self._made: Endpoint | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:
        """ASGI.  Without an admin key in the configuration there is no admin API."""
        try:
            self._check(scope)
        except GatewayError as error:
            await refuse(Reply(send), error, None, new_request_id())
            return
        await (await self._app())(scope, receive, send)

    async def _app(self) -> Endpoint:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    def _check(self, scope: dict[str, Any]) -> None:
        if self._digest is None:
            raise NotFound("The admin API is off: set `admin_key` in the configuration.")
        if not hmac.compare_digest(hash_key(secret_of(headers_of(scope["headers"]))), self._digest):
            raise Unauthorized("The admin key is not valid.")

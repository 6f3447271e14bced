"""`/healthz` (alive), `/readyz` (can serve) and `/metrics`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from gateway.accounts import shared_lines
from gateway.api.reply import ASGISend, Receive, Reply
from gateway.errors import LedgerUnavailable
from gateway.health import Condition
from gateway.ledger.base import Balance
from gateway.pipeline import Parts
from gateway.site import Sites

JSON = [(b"content-type", b"application/json")]
LEDGER_WAIT_S = 2.0


class Health:
    """Answers probes and Prometheus; needs no key."""

    def __init__(self, sites: Sites, parts: Parts) -> None:
        self.sites = sites
        self.parts = parts
        self.draining = False

    async def alive(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:  # noqa: ARG002  # ASGI's signature
        """200 as long as the event loop turns."""
        await Reply(send).whole(200, JSON, b'{"status":"alive"}')

    async def ready(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:  # noqa: ARG002  # ASGI's signature
        """200 if requests can be served: the ledger answers and nobody is shutting down.  503 says why not."""
        checks = {
            "ledger": await self._ledger(),
            "draining": self.draining,
            "config": self.sites.current.settings.source,
        }
        fine = checks["ledger"] == "ok" and not self.draining
        body = orjson.dumps({"status": "ready" if fine else "not ready", **checks})
        await Reply(send).whole(200 if fine else 503, JSON, body)

    async def metrics(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:  # noqa: ARG002  # ASGI's signature
        """Prometheus text; budget gauges are read from the ledger at this moment."""
        site, metrics = self.sites.current, self.parts.metrics
        balances: list[Balance] = []
        try:
            async with asyncio.timeout(LEDGER_WAIT_S):
                places = site.catalog.deployments.values()
                shown = shared_lines(site.directory.tenants, site.pipeline.limits, places, now=time.time())
                balances = await self.parts.ledger.balances(shown)
                await self.parts.ledger.ping()
            metrics.reached_ledger(True)
        except (LedgerUnavailable, TimeoutError):
            metrics.reached_ledger(False)  # the other figures are still true
        body = metrics.render(balances, *self._state(), site.catalog.deployments.values())
        await Reply(send).whole(200, [(b"content-type", metrics.content_type.encode())], body)

    def publish(self) -> None:
        """Shows what this worker has counted, and how its deployments are, to whichever worker is asked."""
        self.parts.metrics.publish(*self._state())

    def _state(self) -> tuple[dict[str, Condition], int]:
        conditions = {name: self.parts.health.of(name) for name in self.sites.current.catalog.deployments}
        return conditions, self.parts.recorder.pending() + self.parts.settlements.waiting

    async def _ledger(self) -> str:
        try:
            async with asyncio.timeout(LEDGER_WAIT_S):
                await self.parts.ledger.ping()
        except (LedgerUnavailable, TimeoutError) as error:
            return f"unavailable: {error}"
        return "ok"

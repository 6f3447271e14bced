"""Alerts on their way to webhooks.  Each delivery is a task of its own: a dead webhook delays nothing and nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpx
import structlog

from gateway.alerting.alerts import Alert
from gateway.configuration.schema import Webhook
from gateway.metrics import Metrics

log = structlog.get_logger()

TIMEOUT_S = 5.0
TRIES = 4
PAUSE_S = 2.0
WAITING_MAX = 200
"""Deliveries under way; past it an alert is only in the log and the metrics."""


class Webhooks:
    """One per process, between its making and `close`."""

    def __init__(
        self,
        metrics: Metrics,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._metrics = metrics
        self._transport = transport
        self._sleep = sleep
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, alert: Alert, hooks: Iterable[Webhook], at: float) -> None:
        """Begins to tell every webhook; returns at once."""
        for hook in hooks:
            if len(self._tasks) >= WAITING_MAX:
                self._failed(alert, hook, "too many deliveries are under way")
                continue
            task = asyncio.get_running_loop().create_task(self._deliver(alert, hook, at))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Gives up what has not been delivered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, alert: Alert, hook: Webhook, at: float) -> None:
        reason = ""
        for number in range(TRIES):
            if number:
                await self._sleep(PAUSE_S * 2 ** (number - 1))
            reason = await self._post(hook, _body(alert, hook, at))
            if not reason:
                self._metrics.alerted(alert.kind, "delivered")
                return
        self._failed(alert, hook, reason)

    async def _post(self, hook: Webhook, body: dict[str, Any]) -> str:
        """Why it was not taken; empty: it was."""
        try:
            async with httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT_S, trust_env=False) as client:
                reply = await client.post(hook.url, json=body, headers=hook.headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return "" if reply.is_success else f"status {reply.status_code}"

    def _failed(self, alert: Alert, hook: Webhook, reason: str) -> None:
        self._metrics.alerted(alert.kind, "undelivered")
        host = httpx.URL(hook.url).host  # the rest of the address may be a secret
        log.error("alert not delivered", alert=alert.id, webhook=host, reason=reason)


def _body(alert: Alert, hook: Webhook, at: float) -> dict[str, Any]:
    if hook.kind == "slack":
        return {"text": f":warning: {alert.text}"}
    facts = dict(alert.facts)
    return {"id": alert.id, "kind": alert.kind, "subject": alert.subject, "text": alert.text, "facts": facts, "at": at}

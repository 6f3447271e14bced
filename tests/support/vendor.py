"""A vendor in OpenAI's image, inside the process: it keeps responses, and makes some of them in the background."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from gateway import settings
from gateway.app import Gateway, running
from gateway.types import Record

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 120,
}


def response(id_: str, status: str, body: dict[str, Any]) -> dict[str, Any]:
    """A response object; usage and output once it is completed."""
    done = status == "completed"
    content = [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}]
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    return {
        "id": id_,
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": body.get("model"),
        "output": [message] if done else [],
        "previous_response_id": body.get("previous_response_id"),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "store": body.get("store", True),
        "usage": USAGE if done else None,
    }


@dataclass
class Vendor(httpx.AsyncBaseTransport):
    """`down` names hosts that answer 503; `replies` answers paths it has no own behaviour for."""

    calls: list[tuple[str, str, Any]] = field(default_factory=list)  # method, URL, body
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    looks_until_done: int = 2
    replies: dict[str, httpx.Response] = field(default_factory=dict)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raw = await request.aread()
        form = request.headers.get("content-type", "").startswith("multipart/")
        body = raw if form or not raw else json.loads(raw)
        self.calls.append((request.method, str(request.url), body))
        path = request.url.path
        if request.url.host in self.down:
            return httpx.Response(503, json={"error": {"message": "busy"}}, request=request)
        if path.endswith("/responses"):
            return self._create(body)
        if "/responses/" in path:
            return self._stored(request.method, path)
        found = self.replies.get(path)
        return found or httpx.Response(404, json={"error": {"message": "no such path"}})

    def _create(self, body: dict[str, Any]) -> httpx.Response:
        id_ = f"resp_{len(self.kept) + 1:04d}"
        if body.get("previous_response_id") not in (None, *self.kept):
            return httpx.Response(400, json={"error": {"message": "not found", "code": "previous_response_not_found"}})
        found = response(id_, "queued" if body.get("background") else "completed", body)
        self.kept[id_] = found
        if not body.get("stream"):
            return httpx.Response(200, json=found)
        states = [("created", response(id_, "in_progress", body)), ("completed", found)]
        events = [
            {"type": f"response.{kind}", "sequence_number": i, "response": state}
            for i, (kind, state) in enumerate(states)
        ]
        text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    def _stored(self, method: str, path: str) -> httpx.Response:
        id_, _, below = path.split("/responses/")[1].partition("/")
        found = self.kept.get(id_)
        if found is None:
            return httpx.Response(404, json={"error": {"message": "no such response"}})
        if method == "DELETE":
            del self.kept[id_]
            return httpx.Response(200, json={"id": id_, "object": "response.deleted", "deleted": True})
        if below == "input_items":
            return httpx.Response(200, json={"object": "list", "data": [], "has_more": False})
        if below == "cancel":
            found["status"] = "cancelled"
        elif found["status"] == "queued":
            self.looks_until_done -= 1
            if self.looks_until_done <= 0:
                found |= response(id_, "completed", found)
        return httpx.Response(200, json=found)


@dataclass
class Served:
    """A started gateway in front of the vendor."""

    gateway: Gateway
    vendor: Vendor
    http: httpx.AsyncClient
    records: list[Record] = field(default_factory=list)

    def openai(self, key: str = "key-of-acme", **options: Any) -> openai.AsyncOpenAI:
        """The official SDK, with only its base URL and key changed."""
        return openai.AsyncOpenAI(
            base_url="http://gateway/v1", api_key=key, http_client=self.http, max_retries=0, **options
        )


@asynccontextmanager
async def served(text: str, vendor: Vendor | None = None) -> AsyncIterator[Served]:
    """A gateway under the settings in `text`, whose providers are all the vendor."""
    vendor = vendor or Vendor()
    app = Gateway(lambda: settings.parse(text, {}), transport=lambda _: vendor)
    async with running(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30) as http:
            found = Served(app, vendor, http)
            observe = app.parts.metrics.observe

            def seen(record: Record, *rest: Any) -> None:
                found.records.append(record)
                observe(record, *rest)

            app.parts.metrics.observe = seen  # type: ignore[method-assign]  # what the metrics see is what was booked
            yield found

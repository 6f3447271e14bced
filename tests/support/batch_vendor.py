"""Three kinds of vendors that take batches, inside the process, and a gateway in front of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai

from gateway import multipart, settings
from gateway.app import Gateway, running
from gateway.ledger.base import Ledger, Line
from gateway.types import Account, Record

KINDS = ("openai", "anthropic", "gemini")
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
INPUT, OUTPUT = 10, 5
"""Tokens of every answer."""
COST = 10 * 500 + 5 * 1000
"""NanoUSD of one answer: half of $1 and $2 a million."""
CACHED = 6
"""Of the input of an answer whose fate is `cached`."""

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  vendor: {{preset: {kind}, base_url: "http://vendor.test{base}", api_key: key-at-vendor}}
  other: {{dialect: openai, base_url: "http://other.test/v1", api_key: key-at-other}}
deployments:
  - {{id: m, provider: vendor, upstream_model: {model}, context_max: 100000, output_max: 8000,
      price: {{input: 1, output: 2, cache_read: 0.1, variants: {{batch: {{multiplier: 0.5}}}}}}}}
  - {{id: m2, provider: vendor, upstream_model: {model}-2, context_max: 100000, output_max: 8000,
      price: {{input: 1, output: 2, variants: {{batch: {{multiplier: 0.5}}}}}}}}
  - {{id: unpriced, provider: vendor, upstream_model: {model}-3, context_max: 100000, output_max: 8000,
      price: {{input: 1, output: 2}}}}
  - {{id: no-batches, provider: other, upstream_model: x, price: {{input: 1, output: 2}}}}
tenants:
  - id: acme
    keys: [{{name: prod, key: key-of-acme}}]
    models: [m, m2, unpriced, no-batches]
    budgets: [{{limit_usd: {limit}, window: day}}]
  - id: rival
    keys: [{{name: prod, key: key-of-rival}}]
"""
BASES = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}


def config(folder: Path, kind: str, *, limit: str = "100") -> str:
    """One vendor of the kind, two models that it serves in batches, and one that another vendor serves."""
    return CONFIG.format(folder=folder, kind=kind, base=BASES[kind], model=MODELS[kind], limit=limit)


def line(custom_id: str, model: str = "m", **body: Any) -> dict[str, Any]:
    """A line of an input file; `url` and `method` can be given too."""
    told = {name: body.pop(name) for name in ("url", "method") if name in body}
    messages = [{"role": "user", "content": f"Say {custom_id}."}]
    asked = {"model": model, "messages": messages, "max_tokens": 20, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked, **told}


@dataclass
class VendorBatch:
    """A batch as the vendor knows it."""

    id: str
    name: str
    lines: list[tuple[str, dict[str, Any]]]
    looks: int = 0
    cancelled: bool = False


@dataclass
class BatchVendor(httpx.AsyncBaseTransport):
    """`fates`: what becomes of a line, by its place: failed, expired, cancelled, missing, no_usage, broken, unreadable,
    cached.

    `faults`: called before a request is served, may raise or return a reply; `until_done`: looks until a batch ends.
    """

    kind: str
    fates: dict[int, str] = field(default_factory=dict)
    until_done: int = 1
    ends: str = "completed"
    fault: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
    broken: Callable[[httpx.Request], bool] = lambda _: False  # the reply of what was done is lost
    batches: dict[str, VendorBatch] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self.calls.append(f"{request.method} {request.url.path}")
        self.seen.set()
        if (failed := self.fault(request)) is not None:
            return failed
        serve = {"openai": self._openai, "anthropic": self._anthropic, "gemini": self._gemini}[self.kind]
        reply = serve(request, body)
        if self.broken(request):
            raise httpx.ReadError("the reply is lost", request=request)
        return reply

    def _add(self, name: str, lines: list[tuple[str, dict[str, Any]]]) -> VendorBatch:
        prefix = "batches/b" if self.kind == "gemini" else "b"
        batch = VendorBatch(f"{prefix}{len(self.batches) + 1}", name, lines)
        self.batches[batch.id] = batch
        return batch

    def _over(self, batch: VendorBatch) -> str:
        if batch.cancelled:
            return "cancelled"
        return self.ends if batch.looks > self.until_done else ""

    def _fate(self, batch: VendorBatch, place: int) -> str:
        if batch.cancelled:
            return "cancelled"
        return self.fates.get(place, "")

    # OpenAI

    def _openai(self, request: httpx.Request, body: bytes) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer key-at-vendor"
        path = request.url.path.removeprefix("/v1")
        if path == "/files":
            boundary = multipart.boundary(request.headers["content-type"])
            assert boundary is not None
            id_ = f"file-{len(self.files) + 1}"
            self.files[id_] = bytes(multipart.fields(body, boundary)["file"])
            return httpx.Response(200, json={"id": id_, "object": "file"})
        if path.startswith("/files/"):
            id_ = path.split("/")[2]
            return httpx.Response(200, content=self.files[id_]) if id_ in self.files else _gone()
        if path == "/batches" and request.method == "POST":
            asked = json.loads(body)
            raw = [json.loads(each) for each in self.files[asked["input_file_id"]].splitlines()]
            assert {each["url"] for each in raw} == {asked["endpoint"]}
            lines = [(each["custom_id"], each["body"]) for each in raw]
            return httpx.Response(200, json=self._openai_shape(self._add(asked["metadata"]["tollgate-batch"], lines)))
        if path == "/batches":
            return httpx.Response(200, json={"data": [self._openai_shape(each) for each in self.batches.values()]})
        batch = self.batches.get(path.split("/")[2])
        if batch is None:
            return _gone()
        batch.looks += 1
        batch.cancelled = batch.cancelled or path.endswith("/cancel")
        return httpx.Response(200, json=self._openai_shape(batch))

    def _openai_shape(self, batch: VendorBatch) -> dict[str, Any]:
        over = self._over(batch)
        found: dict[str, Any] = {"id": batch.id, "status": over or "in_progress", "input_file_id": "file-1"}
        found["metadata"] = {"tollgate-batch": batch.name}
        if over == "failed":
            return found | {"errors": {"data": [{"code": "invalid", "message": "the vendor dislikes line 1"}]}}
        if over:
            good, bad = [], []
            for place, (id_, asked) in enumerate(batch.lines):
                fate = self._fate(batch, place)
                if fate in ("expired", "cancelled"):
                    bad.append({"custom_id": id_, "response": None, "error": {"code": f"batch_{fate}", "message": "."}})
                elif fate == "failed":
                    error = {"error": {"message": "the vendor failed", "type": "server_error"}}
                    bad.append({"custom_id": id_, "response": {"status_code": 500, "body": error}, "error": None})
                elif fate == "unreadable":
                    bad.append("nothing that can be read")
                elif fate != "missing":
                    good.append({"custom_id": id_, "response": {"status_code": 200, "body": _chat(asked, fate)}})
            for name, lines in (("output", good), ("error", bad)):
                self.files[f"{name}-{batch.id}"] = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
                if lines:
                    found[f"{name}_file_id"] = f"{name}-{batch.id}"
        return found

    # Anthropic

    def _anthropic(self, request: httpx.Request, body: bytes) -> httpx.Response:
        assert request.headers["x-api-key"] == "key-at-vendor"
        assert request.headers["anthropic-version"]
        path = request.url.path.removeprefix("/v1/messages/batches")
        if not path and request.method == "POST":
            lines = [(each["custom_id"], each["params"]) for each in json.loads(body)["requests"]]
            return httpx.Response(200, json=self._anthropic_shape(self._add("", lines)))
        if not path:
            return httpx.Response(200, json={"data": [self._anthropic_shape(each) for each in self.batches.values()]})
        batch = self.batches.get(path.split("/")[1])
        if batch is None:
            return _gone()
        if path.endswith("/results"):
            lines = [self._anthropic_line(batch, place) for place in range(len(batch.lines))]
            return httpx.Response(200, content=b"".join(lines))
        batch.looks += 1
        batch.cancelled = batch.cancelled or path.endswith("/cancel")
        return httpx.Response(200, json=self._anthropic_shape(batch))

    def _anthropic_shape(self, batch: VendorBatch) -> dict[str, Any]:
        over = self._over(batch)
        count = len(batch.lines)
        ended = "canceled" if over == "cancelled" else "expired" if over == "expired" else "succeeded"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if over else "in_progress",
            "request_counts": {ended: count, "processing": 0} if over else {"processing": count},
            "created_at": datetime.now(UTC).isoformat(),
            "cancel_initiated_at": datetime.now(UTC).isoformat() if batch.cancelled else None,
        }

    def _anthropic_line(self, batch: VendorBatch, place: int) -> bytes:
        id_, asked = batch.lines[place]
        fate = self._fate(batch, place)
        if fate == "missing":
            return b""
        if fate == "unreadable":
            return b'"nothing that can be read"\n'
        result: dict[str, Any] = {"type": "succeeded", "message": _message(asked, fate)}
        if fate in ("expired", "cancelled"):
            result = {"type": "canceled" if fate == "cancelled" else fate}
        elif fate == "failed":
            error = {"type": "api_error", "message": "the vendor failed"}
            result = {"type": "errored", "error": {"type": "error", "error": error}}
        return json.dumps({"custom_id": id_, "result": result}).encode() + b"\n"

    # Gemini

    def _gemini(self, request: httpx.Request, body: bytes) -> httpx.Response:
        assert request.headers["x-goog-api-key"] == "key-at-vendor"
        path = request.url.path.removeprefix("/v1beta/")
        if path.endswith(":batchGenerateContent"):
            assert path == f"models/{MODELS['gemini']}:batchGenerateContent"
            asked = json.loads(body)["batch"]
            requests = asked["input_config"]["requests"]["requests"]
            lines = [(each["metadata"]["key"], each["request"]) for each in requests]
            return httpx.Response(200, json=self._gemini_shape(self._add(asked["display_name"], lines)))
        if path == "batches":
            found = [self._gemini_shape(each) for each in self.batches.values()]
            return httpx.Response(200, json={"operations": found})
        batch = self.batches.get(path.removesuffix(":cancel"))
        if batch is None:
            return _gone()
        batch.looks += 1
        batch.cancelled = batch.cancelled or path.endswith(":cancel")
        return httpx.Response(200, json=self._gemini_shape(batch), headers={"content-type": "application/json"})

    def _gemini_shape(self, batch: VendorBatch) -> dict[str, Any]:
        over = self._over(batch)
        word = {"": "RUNNING", "completed": "SUCCEEDED"}.get(over, over.upper())
        told = {"state": f"BATCH_STATE_{word}", "displayName": batch.name}
        found: dict[str, Any] = {"name": batch.id, "metadata": told}
        if over == "failed":
            return found | {"done": True, "error": {"code": 3, "message": "the vendor dislikes line 1"}}
        if over == "completed":
            results = [self._gemini_result(batch, place) for place in range(len(batch.lines))]
            inlined = [each for each in results if each is not None]
            found |= {"done": True, "response": {"inlinedResponses": {"inlinedResponses": inlined}}}
        return found

    def _gemini_result(self, batch: VendorBatch, place: int) -> dict[str, Any] | None:
        id_, asked = batch.lines[place]
        fate = self._fate(batch, place)
        if fate in ("missing", "expired", "cancelled"):
            return None
        if fate == "unreadable":
            return {"nothing": "that can be read"}
        if fate == "failed":
            return {"error": {"code": 13, "message": "the vendor failed"}, "metadata": {"key": id_}}
        return {"response": _generated(asked, fate), "metadata": {"key": id_}}


def _gone() -> httpx.Response:
    return httpx.Response(404, json={"error": {"message": "no such thing", "type": "not_found_error"}})


def _said(asked: dict[str, Any]) -> str:
    return f"answer to {asked['messages'][-1]['content']}"


def _chat(asked: dict[str, Any], fate: str) -> dict[str, Any]:
    if fate == "broken":
        return {"object": "chat.completion"}
    message = {"role": "assistant", "content": _said(asked)}
    found: dict[str, Any] = {"id": "c1", "object": "chat.completion", "created": 1, "model": asked["model"]}
    found["choices"] = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    if fate != "no_usage":
        found["usage"] = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    if fate == "cached":
        found["usage"]["prompt_tokens_details"] = {"cached_tokens": CACHED}
    return found


def _message(asked: dict[str, Any], fate: str) -> dict[str, Any]:
    if fate == "broken":
        return {"type": "message"}
    content = asked["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    found = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "stop_reason": "end_turn"}
    usage = {"input_tokens": INPUT, "output_tokens": OUTPUT, "service_tier": "batch"}
    if fate == "cached":
        usage |= {"input_tokens": INPUT - CACHED, "cache_read_input_tokens": CACHED}
    told = {} if fate == "no_usage" else {"usage": usage}
    return {**found, "content": [{"type": "text", "text": f"answer to {text}"}], **told}


def _generated(asked: dict[str, Any], fate: str) -> dict[str, Any]:
    if fate == "broken":
        return {"candidates": 7}
    text = asked["contents"][-1]["parts"][0]["text"]
    content = {"role": "model", "parts": [{"text": f"answer to {text}"}]}
    usage = {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT, "totalTokenCount": INPUT + OUTPUT}
    if fate == "cached":
        usage["cachedContentTokenCount"] = CACHED
    told = {} if fate == "no_usage" else {"usageMetadata": usage}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "modelVersion": "g", **told}


@dataclass
class Served:
    """A started gateway in front of the vendor."""

    gateway: Gateway
    vendor: BatchVendor
    http: httpx.AsyncClient
    records: list[Record] = field(default_factory=list)

    def openai(self, key: str = "key-of-acme") -> openai.AsyncOpenAI:
        """The official SDK, with only its base URL and key changed."""
        return openai.AsyncOpenAI(base_url="http://gateway/v1", api_key=key, http_client=self.http, max_retries=0)

    async def create(self, lines: list[Any], **headers: str) -> Any:
        """A batch of these lines, as the SDK returns it."""
        client = self.openai()
        content = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines)
        file = await client.files.create(file=("in.jsonl", content.encode()), purpose="batch")
        return await client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_headers=headers,
        )

    async def ended(self, id_: str) -> Any:
        """The batch once it is over."""
        client = self.openai()
        async with asyncio.timeout(30):
            while True:
                batch = await client.batches.retrieve(id_)
                if batch.status in ("completed", "failed", "expired", "cancelled"):
                    return batch
                await asyncio.sleep(0.01)

    async def content(self, file: str | None) -> dict[str, Any]:
        """Lines of an output or error file by custom_id; none where there is no file."""
        if file is None:
            return {}
        found = await self.openai().files.content(file)
        return {each["custom_id"]: each for each in map(json.loads, found.text.splitlines())}

    async def spent(self) -> tuple[int, int]:
        """NanoUSD of acme's day: settled, and set aside."""
        tenant = next(each for each in self.gateway.sites.current.directory.tenants if each.id == "acme")
        line = Line(Account("tenant", "acme", "acme"), tenant.limits[0], 0)
        (balance,) = await self.gateway.parts.ledger.balances([line])
        return balance.spent, balance.reserved


@asynccontextmanager
async def served(text: str, vendor: BatchVendor, ledger: Ledger | None = None) -> AsyncIterator[Served]:
    """A gateway under the settings in `text` that looks at batches all the time."""
    app = Gateway(lambda: settings.parse(text, {}), ledger=ledger, transport=lambda _: vendor)
    async with running(app):
        app.runner.pause = lambda _: 0.01
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30) as http:
            found = Served(app, vendor, http)
            observe = app.parts.metrics.observe

            def seen(record: Record, *rest: Any) -> None:
                found.records.append(record)
                observe(record, *rest)

            app.parts.metrics.observe = seen  # type: ignore[method-assign]
            yield found

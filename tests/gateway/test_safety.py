"""What crosses the gateway and what does not: headers both ways, redirects, sizes, and where requests can be sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Served, served

from gateway.upstream import ERROR_BODY_MAX

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  p: {{dialect: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: sk-of-the-gateway, retries_max: 0,
    headers: {{x-account: ours}}}}
deployments:
  - {{id: m, provider: p, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}]}}
"""
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
}
CHUNK = {
    **{name: REPLY[name] for name in ("id", "created", "model", "usage")},
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
}
WHOLE = json.dumps(REPLY).encode()
STREAM = b"data: " + json.dumps(CHUNK).encode() + b"\n\ndata: [DONE]\n\n"
ERROR = json.dumps({"error": {"message": "No.", "type": "invalid_request_error"}}).encode()
THEIRS = {
    "set-cookie": "session=theirs",
    "location": "http://elsewhere.example/",
    "server": "their-server",
    "openai-organization": "org-of-the-gateway",
    "x-request-id": "req_theirs",
    "x-ratelimit-limit-requests": "77777",
    "access-control-allow-origin": "*",
    "x-internal": "theirs",
    "alt-svc": 'h3=":443"',
}
OURS = {
    "content-type",
    "content-length",
    "transfer-encoding",
    "date",
    "server",
    "cache-control",
    "x-accel-buffering",
    "x-should-retry",
    "retry-after",
}


@dataclass
class Upstream:
    """Answers every request with `reply`; keeps the heads that came."""

    port: int = 0
    reply: bytes = b""
    endless: bool = False
    heads: list[bytes] = field(default_factory=list)
    sent: int = 0
    accepted: int = 0

    def says(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        lines = {"content-type": kind, "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.reply = f"HTTP/1.1 {status} Words\r\n{head}\r\n".encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                writer.write(self.reply)
                while self.endless:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    self.sent += 65536
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    @property
    def names(self) -> set[str]:
        """Of the headers that came last."""
        return {line.partition(":")[0] for line in self.heads[-1].decode().lower().split("\r\n")[1:] if line}


@asynccontextmanager
async def listening() -> AsyncIterator[Upstream]:
    found = Upstream()
    async with await asyncio.start_server(found.serve, "127.0.0.1", 0) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with listening() as found:
        yield found


@pytest.fixture
async def elsewhere() -> AsyncIterator[Upstream]:
    """Somebody the settings do not name."""
    async with listening() as found:
        found.says(WHOLE)
        yield found


@pytest.fixture
async def gateway(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Served]:
    async with served(CONFIG.format(folder=tmp_path, port=upstream.port)) as found:
        yield found


async def ask(gateway: Served, *, content: Any = "Say yes.", headers: Any = None, **fields: Any) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    sent = {"authorization": "Bearer key-of-acme", **(headers or {})}
    return await gateway.client.post("/v1/chat/completions", json=body, headers=sent)


@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_clients_headers_only_the_named_ones_reach_a_provider(
    gateway: Served, upstream: Upstream, *, stream: bool
) -> None:
    upstream.says(STREAM if stream else WHOLE, kind="text/event-stream" if stream else "application/json")
    theirs = {
        "cookie": "session=client",
        "host": "evil.example",
        "x-forwarded-for": "10.0.0.1",
        "forwarded": "for=10.0.0.1",
        "proxy-authorization": "Basic Y2xpZW50",
        "accept-encoding": "gzip, br",
        "te": "trailers",
        "expect": "",
        "openai-organization": "org-of-the-client",
        "x-api-key": "key-of-acme",
        "api-key": "key-of-acme",
        "x-account": "client",
        "x-tollgate-user": "u7",
        "user-agent": "client/1",
        "openai-beta": "assistants=v2",
    }
    reply = await ask(gateway, stream=stream, headers=theirs)
    assert reply.status_code == 200
    allowed = {"host", "accept-encoding", "content-type", "accept", "authorization", "content-length", "x-account"}
    assert upstream.names == allowed | {"openai-beta"}
    head = upstream.heads[-1].decode().lower()
    assert f"host: 127.0.0.1:{upstream.port}\r\n" in head
    assert "authorization: bearer sk-of-the-gateway\r\n" in head
    assert "accept-encoding: identity\r\n" in head
    assert "x-account: ours\r\n" in head
    assert "key-of-acme" not in head


@pytest.mark.parametrize("kind", ["whole", "stream", "error"])
async def test_of_a_providers_headers_none_reach_the_client(gateway: Served, upstream: Upstream, kind: str) -> None:
    if kind == "error":
        upstream.says(ERROR, 400, **THEIRS)
    else:
        media = "text/event-stream" if kind == "stream" else "application/json"
        upstream.says(STREAM if kind == "stream" else WHOLE, 200, media, **THEIRS)
    reply = await ask(gateway, stream=kind == "stream")
    assert reply.status_code == (400 if kind == "error" else 200)
    others = {
        name for name in reply.headers if name not in OURS and not name.startswith(("x-tollgate-", "x-ratelimit-"))
    }
    assert not others
    said = str(reply.headers)
    assert not [value for value in THEIRS.values() if value != "*" and value in said]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    gateway: Served, upstream: Upstream, elsewhere: Upstream, status: int
) -> None:
    upstream.says(b"", status, location=f"http://127.0.0.1:{elsewhere.port}/v1/chat/completions")
    reply = await ask(gateway)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_broken")
    assert len(upstream.heads) == 1
    assert not elsewhere.accepted


async def test_an_error_page_without_end_is_read_to_its_bound_and_no_further(
    gateway: Served, upstream: Upstream
) -> None:
    upstream.reply = b"HTTP/1.1 500 Words\r\ncontent-type: text/plain\r\n\r\n"
    upstream.endless = True
    reply = await ask(gateway)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_error")
    assert len(reply.content) < 4096
    assert upstream.sent < 256 * ERROR_BODY_MAX  # the rest is what sockets hold


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": "{url}"},
        {"api_base": "{url}", "api_key": "sk-x"},
        {"model": "{url}/m"},
        {"user": "{url}", "metadata": {"base_url": "{url}"}},
        {"extra_headers": {"host": "127.0.0.1"}, "extra_body": {"base_url": "{url}"}},
        {"content": [{"type": "image_url", "image_url": {"url": "{url}/image.png"}}]},
        {"content": [{"type": "file", "file": {"file_data": "{url}/file.pdf", "filename": "x"}}]},
        {"headers": {"x-tollgate-base-url": "{url}", "x-base-url": "{url}", "x-forwarded-host": "{url}"}},
        {"headers": {"host": "{url}", "x-original-url": "{url}", "x-rewrite-url": "{url}"}},
        {"headers": {"x-tollgate-route": "{url}/m"}},
    ],
    ids=lambda fields: "-".join(fields),
)
async def test_no_request_can_send_the_gateway_elsewhere(
    gateway: Served, upstream: Upstream, elsewhere: Upstream, fields: dict[str, Any]
) -> None:
    upstream.says(WHOLE)
    url = f"http://127.0.0.1:{elsewhere.port}"
    reply = await ask(gateway, **json.loads(json.dumps(fields).replace("{url}", url)))
    assert reply.status_code in {200, 400, 404}
    assert not elsewhere.accepted


@pytest.mark.parametrize(
    "path",
    [
        "/v1/responses/..%2f..%2fsecret",
        "/v1/responses/http:%2f%2f127.0.0.1",
        "/v1/responses/%2e%2e",
        "/v1/files/..%2fsecret",
        "/v1/batches/..%2fsecret",
        "http://127.0.0.1/v1/chat/completions",
    ],
)
async def test_no_path_leads_elsewhere(gateway: Served, upstream: Upstream, path: str) -> None:
    address = path if path.startswith("http") else f"{gateway.url}{path}"
    if path.startswith("http"):
        return_to = httpx.Request("GET", gateway.url, extensions={"target": address.encode()})
        return_to.headers["authorization"] = "Bearer key-of-acme"
        reply = await gateway.client.send(return_to)
    else:
        reply = await gateway.client.get(address, headers={"authorization": "Bearer key-of-acme"})
    assert 400 <= reply.status_code < 500
    assert not upstream.accepted


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/responses", "/v1/chat/completions"])
async def test_a_websocket_is_never_opened_so_nothing_is_used_there_uncounted(
    gateway: Served, upstream: Upstream, path: str
) -> None:
    asked = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
    asked |= {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "authorization": "Bearer key-of-acme"}
    assert (await gateway.client.get(f"{path}?model=m", headers=asked)).status_code >= 400
    told: list[Any] = []

    async def connecting() -> Any:
        return {"type": "websocket.connect"}

    async def tell(message: Any) -> None:
        told.append(message)

    headers = [(name.encode(), value.encode()) for name, value in asked.items()]
    scope = {"type": "websocket", "path": path, "query_string": b"model=m", "headers": headers}
    await gateway.gateway(scope, connecting, tell)  # as a server hands it on that can speak it
    assert told == []
    assert not upstream.accepted


FORGED = [
    {"host": "127.0.0.1"},
    {"host": "localhost", "x-forwarded-host": "localhost"},
    {"host": "/healthz?"},
    {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1;host=localhost"},
    {"x-original-url": "/healthz", "x-rewrite-url": "/healthz"},
    {"x-http-method-override": "GET", "x-forwarded-proto": "https", "x-forwarded-prefix": "/metrics"},
    {"x-forwarded-user": "admin", "x-remote-user": "admin", "remote-user": "admin", "x-user-id": "acme"},
    {"x-tollgate-tenant": "acme", "x-tollgate-key": "acme:prod", "x-tollgate-user": "acme"},
    {"cookie": "session=acme; token=key-of-acme; api_key=key-of-acme"},
    {"authorization": "Basic a2V5LW9mLWFjbWU6"},
    {"authorization": "Bearer ' OR '1'='1"},
    {"authorization": "Bearer %"},
    {"authorization": "Bearer key-of-acme'--"},
    {"x-api-key": "acme:prod"},
    {"x-api-key": "key-of-acme\u00a0"},
]


@pytest.mark.parametrize("headers", FORGED, ids=lambda headers: "-".join(headers))
async def test_nothing_but_its_key_makes_anyone_a_client_or_an_administrator(
    gateway: Served, upstream: Upstream, headers: dict[str, str]
) -> None:
    upstream.says(WHOLE)
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    body = {"model": "m", "messages": [{"role": "user", "content": "Say yes."}]}
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/admin/v1/tenants")):
        reply = await gateway.client.request(method, path, headers=sent, json=body if method == "POST" else None)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert not upstream.accepted


@pytest.mark.parametrize(
    "target",
    [
        "/healthz/../admin/v1/tenants",
        "/healthz/..%2fadmin/v1/tenants",
        "//admin/v1/tenants",
        "/admin/v1/tenants;/healthz",
        "/admin/v1/tenants#/healthz",
        "/admin%2fv1/tenants",
        "/ADMIN/v1/tenants",
        "/admin/./v1/tenants",
        "/admin/v1/tenants?key=test-admin-key&api_key=test-admin-key",
        "http://test-admin-key@127.0.0.1/admin/v1/tenants",
        "/v1/models?api_key=key-of-acme",
    ],
)
async def test_no_way_of_writing_a_path_leads_past_its_key(gateway: Served, target: str) -> None:
    asked = httpx.Request("GET", gateway.url, extensions={"target": target.encode()})
    reply = await gateway.client.send(asked)
    assert reply.status_code in {400, 401, 404}
    assert "acme" not in reply.text

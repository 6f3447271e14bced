"""What both OpenAPI documents promise is what the gateway does: whatever they allow gets a reply that they describe."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from harness import ADMIN_KEY, KEY
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from vendor import Vendor

from gateway import settings as configuration
from gateway.api import openapi
from gateway.api.admin import admin_app
from gateway.app import Gateway, running
from gateway.simulated import SimulatedTransport
from gateway.types import Provider

CHECKS = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  simulated: {{dialect: simulated}}
  vendor: {{dialect: openai, base_url: "https://vendor.example/v1", api_key: k,
    options: {{paths: {{responses: /responses}}}}}}
deployments:
  - {{id: sim, provider: simulated, upstream_model: "sim-small?first_token_ms=0", price: {{input: 1, output: 1}}}}
  - {{id: any, provider: vendor, upstream_model: any-model, price: {{input: 1, output: 1, audio_in: 1}}}}
tenants:
  - id: acme
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: 1000000, window: day}}]
"""
REPLIES: dict[str, Any] = {
    "/v1/completions": {"object": "text_completion", "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]},
    "/v1/embeddings": {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]},
    "/v1/rerank": {"results": [{"index": 0, "relevance_score": 0.5}]},
    "/v1/moderations": {"id": "modr", "results": [{"flagged": False}]},
    "/v1/images/generations": {"created": 1, "data": [{"b64_json": "aGk="}]},
    "/v1/images/edits": {"created": 1, "data": [{"b64_json": "aGk="}]},
    "/v1/images/variations": {"created": 1, "data": [{"b64_json": "aGk="}]},
    "/v1/audio/transcriptions": {"text": "Hi."},
    "/v1/audio/translations": {"text": "Hi."},
    "/v1/audio/speech": {},
}
USAGE = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3, "input_tokens": 2, "output_tokens": 1}
OF_THE_VENDOR = dict.fromkeys([*REPLIES, "/v1/responses"], "any")

DATA_PLANE = openapi.document()
ADMIN = admin_app(None, None, None).openapi()  # type: ignore[arg-type]  # nothing is asked of them here

data_plane = schemathesis.openapi.from_dict(DATA_PLANE)
admin = schemathesis.openapi.from_dict(ADMIN)


def transport(provider: Provider) -> Any:
    if provider.dialect == "simulated":
        return SimulatedTransport()
    return Vendor(replies={path: httpx.Response(200, json=body | {"usage": USAGE}) for path, body in REPLIES.items()})


class Served:
    """One gateway for many examples: starting it is slower than asking it."""

    def __init__(self, folder: Path) -> None:
        text = CONFIG.format(folder=folder)
        self.app = Gateway(lambda: configuration.parse(text, {}), transport=transport)
        self.loop = asyncio.new_event_loop()
        self.context = running(self.app)
        self.loop.run_until_complete(self.context.__aenter__())
        through = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=through, base_url="http://gateway", timeout=20)
        self.statuses: dict[str, set[int]] = {}

    def ask(self, case: schemathesis.Case, key: str) -> schemathesis.Response:
        sent = requests.Request(**{**case.as_transport_kwargs(base_url="http://gateway"), "cookies": None})
        sent.headers = {**(sent.headers or {}), "authorization": f"Bearer {key}"}
        prepared = sent.prepare()
        headers = [(name.encode(), value.encode("latin-1", "replace") if isinstance(value, str) else value)
                   for name, value in prepared.headers.items()]  # fmt: skip
        call = self.client.request(prepared.method, prepared.url, headers=headers, content=prepared.body or b"")
        found = self.loop.run_until_complete(call)
        self.statuses.setdefault(case.operation.label, set()).add(found.status_code)
        told: dict[str, list[str]] = {}
        for name, value in found.headers.multi_items():
            told.setdefault(name, []).append(value)
        return schemathesis.Response(found.status_code, told, found.content, prepared, 0.0, False)

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.run_until_complete(self.context.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("openapi"))
    yield found
    found.close()


def asked(served: Served, case: schemathesis.Case, key: str) -> None:
    if isinstance(case.body, dict) and len(str(case.body.get("model", ""))) % 2:
        case.body["model"] = OF_THE_VENDOR.get(case.path, "sim")  # a name by chance is nobody's
        if case.body["model"] == "any":
            case.body["stream"] = False  # the vendor does not
    case.validate_response(served.ask(case, key), checks=CHECKS)


USUAL = settings(
    max_examples=8, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
MANY = settings(USUAL, max_examples=100, derandomize=False)


@data_plane.parametrize()
@USUAL
def test_the_data_plane_answers_as_its_document_says(served: Served, case: schemathesis.Case) -> None:
    asked(served, case, KEY)


@admin.parametrize()
@USUAL
def test_the_admin_api_answers_as_its_document_says(served: Served, case: schemathesis.Case) -> None:
    asked(served, case, ADMIN_KEY)


@pytest.mark.slow
@data_plane.parametrize()
@MANY
def test_the_data_plane_answers_so_to_whatever_is_thought_of(served: Served, case: schemathesis.Case) -> None:
    asked(served, case, KEY)


@pytest.mark.slow
@admin.parametrize()
@MANY
def test_the_admin_api_answers_so_to_whatever_is_thought_of(served: Served, case: schemathesis.Case) -> None:
    asked(served, case, ADMIN_KEY)

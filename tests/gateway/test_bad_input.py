"""Bad input gets a clear 4xx in the client's error shape; nothing is reserved, charged or recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import ADMIN_KEY, KEY, Running, config, gateway

USER = [{"role": "user", "content": "Hi."}]

CASES: list[tuple[str, Any, int, str, str | None]] = [
    ("an unknown model names the nearest", {"model": "smal", "messages": USER}, 404, "'small'", "model"),
    ("no model", {"messages": USER}, 400, "model", "model"),
    ("a model that is no text", {"model": 7, "messages": USER}, 400, "model", "model"),
    ("no messages", {"model": "auto"}, 400, "messages", "messages"),
    ("messages that are no list", {"model": "auto", "messages": "Hi"}, 400, "messages", "messages"),
    ("a message that is no object", {"model": "auto", "messages": [3]}, 400, "messages[0]", None),
    ("a negative maximum", {"model": "auto", "messages": USER, "max_tokens": -1}, 400, "max_tokens", "max_tokens"),
    ("an absurd maximum", {"model": "auto", "messages": USER, "max_tokens": 10**9}, 400, "max_tokens", "max_tokens"),
    ("a stream flag of the wrong type", {"model": "auto", "messages": USER, "stream": "yes"}, 400, "stream", "stream"),
    ("a list for a body", [1, 2], 400, "object", None),
    (
        "more than any context",
        {"model": "small", "messages": [{"role": "user", "content": "word " * 200_000}]},
        400,
        "128000",
        "messages",
    ),
]


async def post(running: Running, path: str, **options: Any) -> Any:
    return await running.client.post(path, headers={"authorization": f"Bearer {KEY}"}, **options)


@pytest.mark.parametrize(("body", "status", "word", "param"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
async def test_it_is_named_in_both_shapes(tmp_path: Path, body: Any, status: int, word: str, param: str | None) -> None:
    async with gateway(config(tmp_path)) as running:
        chat = await post(running, "/v1/chat/completions", json=body)
        assert chat.status_code == status, chat.text
        error = chat.json()["error"]
        assert word in error["message"]
        if param:
            assert error["param"] == param
        messages = await post(running, "/v1/messages", json=body)
        assert messages.status_code == status, messages.text
        assert messages.json()["type"] == "error"
        assert running.provider.called == 0
        assert running.records == []


async def test_what_clients_make_up_makes_no_series(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:

        async def series(word: str) -> set[str]:
            """The series there are when a client has made up `word`."""
            own = {"authorization": f"Bearer {KEY}", "x-tollgate-user": word, "x-tollgate-tags": f"{word}={word}"}
            for model, path in (("small", "/v1/chat/completions"), (word, "/v1/messages"), ("small", f"/v1/{word}")):
                body = {"model": model, "messages": USER, "max_tokens": 5, "user": word, "metadata": {"task": word}}
                await running.client.post(path, json=body, headers=own)
                await running.client.post(path, json=body, headers={"x-api-key": word})
            lines = (await running.client.get("/metrics")).text.splitlines()
            return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

        first = await series("once")
        assert any("tollgate_requests_total" in line for line in first)
        for number in range(20):
            found = await series(f"made-up-{number}")
        assert found == first


async def test_malformed_json_is_shown_with_its_line(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        reply = await post(running, "/v1/chat/completions", content=b'{"model": "auto",\n "messages": [}')
        assert reply.status_code == 400
        assert "line 2" in reply.json()["error"]["message"]


async def test_a_missing_and_a_wrong_key_are_told_apart_and_never_echoed(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        missing = await running.client.post("/v1/chat/completions", json={})
        wrong = await running.client.post("/v1/chat/completions", json={}, headers={"x-api-key": "tg-stolen"})
        assert (missing.status_code, wrong.status_code) == (401, 401)
        assert missing.json()["error"]["message"] != wrong.json()["error"]["message"]
        assert "stolen" not in wrong.text


async def test_an_oversized_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    text = config(tmp_path) + "server: {request_bytes_max: 2048}\n"
    async with gateway(text) as running:
        reply = await running.chat(text="x" * 5000)
        assert reply.status_code == 413
        assert "2048" in reply.json()["error"]["message"]


async def test_a_base_url_without_v1_is_explained(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        reply = await running.client.post("/chat/completions", json={})
        assert reply.status_code == 404
        assert "/v1/chat/completions" in reply.json()["error"]["message"]
        assert (await running.client.get("/v1/chat/completions")).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("HEAD", "/v1/messages", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("PUT", "/healthz", "GET"),
        ("PUT", "/v1/files", "GET, POST"),
        ("PUT", "/v1/files/file-1", "DELETE, GET"),
        ("POST", "/v1/files/file-1/content", "GET"),
        ("DELETE", "/v1/batches/batch_1", "GET"),
        ("GET", "/v1/batches/batch_1/cancel", "POST"),
        ("PATCH", "/v1/responses/resp_1", "DELETE, GET"),
        ("GET", "/v1/responses/resp_1/cancel", "POST"),
        ("PUT", "/admin/v1/tenants", "GET, POST"),
        ("POST", "/admin/v1/tenants/acme", "DELETE, GET, PUT"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_answered_with_those_it_takes(
    tmp_path: Path, method: str, path: str, allow: str
) -> None:
    async with gateway(config(tmp_path)) as running:
        key = ADMIN_KEY if path.startswith("/admin") else KEY
        reply = await running.client.request(method, path, headers={"authorization": f"Bearer {key}"})
        assert (reply.status_code, reply.headers["allow"]) == (405, allow)
        if method != "HEAD":
            assert allow in reply.json()["error"]["message"]


async def test_a_request_above_its_own_maximum_cost_is_refused_before_the_call(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        headers = {"authorization": f"Bearer {KEY}", "x-tollgate-max-cost-usd": "0.000001"}
        reply = await running.client.post(
            "/v1/chat/completions", json={"model": "auto", "messages": USER}, headers=headers
        )
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "request_cost_exceeded"
        assert running.provider.called == 0


async def test_a_maximum_cost_is_held_against_the_cap_the_route_sets_and_not_the_model_s_own(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        headers = {"authorization": f"Bearer {KEY}", "x-tollgate-max-cost-usd": "0.0005"}  # 256 tokens are 0.00026
        reply = await running.client.post(
            "/v1/chat/completions", json={"model": "auto", "messages": USER}, headers=headers
        )
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-tollgate-deployment"] == "small"

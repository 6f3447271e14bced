"""What a log line says, and what it must never say."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import structlog
from databases import a_record
from harness import KEY, config, gateway

from gateway import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def fail() -> None:
    secret = "sk-never-to-be-seen"
    raise ValueError(f"a bug in {len(secret)} characters")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["machine", "person"])
def test_a_traceback_shows_where_and_no_variables(stream: io.StringIO) -> None:
    logs.configure(stream)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("bug", request_id="req_1")
    said = stream.getvalue()
    assert "in fail" in said
    assert "a bug in 19 characters" in said
    assert "sk-never-to-be-seen" not in said


def test_a_line_for_machines_is_one_json_object() -> None:
    stream = io.StringIO()
    logs.configure(stream)
    structlog.get_logger().warning("records wait", count=3, of=object)
    (line,) = stream.getvalue().splitlines()
    found = orjson.loads(line)
    assert (found["event"], found["count"], found["level"]) == ("records wait", 3, "warning")
    assert found["timestamp"].endswith("Z")


def test_details_for_debugging_are_left_out() -> None:
    stream = io.StringIO()
    logs.configure(stream)
    structlog.get_logger().debug("nothing to see")
    assert stream.getvalue() == ""


def test_a_request_is_one_line_that_its_id_finds_without_who_asked_or_what() -> None:
    stream = io.StringIO()
    logs.configure(stream)
    logs.finished(a_record("req_1", user="alice@example.com", task="secret plan", tags={"feature": "hidden"}, cost=7))
    logs.refused("req_2", "acme", "chat", 429, "budget_exceeded")
    first, second = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["event"], first["request_id"], first["cost_nano_usd"], first["outcome"]) == (
        "request",
        "req_1",
        7,
        "ok",
    )
    assert (second["event"], second["request_id"], second["error"]) == ("request refused", "req_2", "budget_exceeded")
    assert not [word for word in ("alice", "secret", "hidden") if word in stream.getvalue()]


def test_a_gateway_within_another_application_leaves_its_logs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logs.finished(a_record())
    logs.refused("req_2", "acme", "chat", 429, "budget_exceeded")
    assert capsys.readouterr() == ("", "")


async def test_the_id_of_the_reply_finds_the_line_and_no_content_is_in_it(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        stream = io.StringIO()
        logs.configure(stream)
        reply = await running.chat("small", text="my password is swordfish")
        missing = await running.chat("no-such-model", text="my password is swordfish")
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    found = {line["request_id"]: line["event"] for line in lines if "request_id" in line}
    assert found[reply.headers["x-tollgate-request-id"]] == "request"
    assert found[missing.headers["x-tollgate-request-id"]] == "request refused"
    said = reply.json()["choices"][0]["message"]["content"]
    assert not [word for word in ("swordfish", said, KEY, "no-such-model") if word in stream.getvalue()]

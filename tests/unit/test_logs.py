"""What a log line says, and what it must never say."""

from __future__ import annotations

import io
from collections.abc import Iterator

import orjson
import pytest
import structlog

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

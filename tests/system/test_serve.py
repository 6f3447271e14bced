"""`tollgate serve` as operators meet it: what it prints works, it stops when told to, and says why it cannot start."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import TOLLGATE, GatewayProcess, web

pytestmark = pytest.mark.system

DEMO = (Path(__file__).parents[2] / "config" / "gateway.yaml").read_text()


@pytest.fixture(scope="module")
def demo(start: Any) -> GatewayProcess:
    found: GatewayProcess = start(DEMO)
    return found


def test_it_is_ready_after_a_few_seconds_of_work(start: Any) -> None:
    before = os.times()
    gateway: GatewayProcess = start(DEMO)
    assert web.get(f"{gateway.url}/readyz").status_code == 200
    gateway.stop()
    after = os.times()
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    assert 0 < worked < 10  # 1.5 s measured, stopping included


def test_the_curl_line_it_prints_works(demo: GatewayProcess) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    line = re.search(r"curl .*\\\n.*", demo.said())
    assert line is not None, demo.said()
    done = subprocess.run(["sh", "-c", f"{line[0]} -s"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_the_snippet_it_prints_works(demo: GatewayProcess) -> None:
    lines = [line.strip() for line in demo.said().splitlines()]
    first = lines.index("from openai import OpenAI")
    snippet = "\n".join(lines[first : first + 3])
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ChatCompletion(" in done.stdout


def test_metrics_and_admin_are_where_it_says(demo: GatewayProcess) -> None:
    assert f"{demo.url}/metrics" in demo.said()
    assert "tollgate_requests_total" in web.get(f"{demo.url}/metrics").text
    admin = {"authorization": "Bearer demo-admin-key"}
    assert web.get(f"{demo.url}/admin/v1/tenants", headers=admin).status_code == 200
    assert web.get(f"{demo.url}/admin/v1/tenants").status_code == 401


def test_a_key_made_on_the_command_line_holds_within_a_second_and_ends_as_soon(demo: GatewayProcess) -> None:
    made = json.loads(demo.cli("keys", "create", "acme", "--new-tenant", "--json"))
    assert status_within(demo, made["secret"], 200, seconds=5)
    demo.cli("keys", "revoke", made["id"])
    assert status_within(demo, made["secret"], 401, seconds=5)


def test_what_was_spent_is_shown_on_the_command_line(demo: GatewayProcess) -> None:
    assert ask(demo, "demo-key-0123456789").status_code == 200
    ends = time.monotonic() + 10
    while not (found := json.loads(demo.cli("spend", "--by", "tenant", "--tenant", "demo", "--json"))):
        assert time.monotonic() < ends, "the record did not reach the database within 10 s"
    assert float(found[0]["cost_usd"]) > 0


def test_several_workers_share_one_address_and_stop_together(start: Any) -> None:
    gateway: GatewayProcess = start(DEMO, workers=2)
    with httpx.Client() as client:
        assert all(ask(gateway, "demo-key-0123456789", client).status_code == 200 for _ in range(10))
    assert gateway.stop() == 0


def test_it_stops_when_told_to_and_finishes_what_it_began(start: Any) -> None:
    gateway: GatewayProcess = start(DEMO)
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "metadata": {"sim": "tps=100&output=100"},
    }
    headers = {"authorization": "Bearer demo-key-0123456789"}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as reply:
        chunks = reply.iter_lines()
        next(chunks)
        gateway.running.signal(signal.SIGTERM)
        assert [line for line in chunks if line][-1] == "data: [DONE]"
    assert gateway.stop() in {0, -signal.SIGTERM}


def test_an_address_that_is_taken_is_said_to_be(demo: GatewayProcess) -> None:
    command = [*TOLLGATE, "serve", "--config", str(demo.config), "--port", str(demo.port)]
    done = subprocess.run(command, cwd=demo.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_file_stops_it_before_it_starts(demo: GatewayProcess, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(DEMO.replace("candidates: [sim-small,", "candidates: [sim-smal,"))
    done = subprocess.run([*TOLLGATE, "serve", "--config", str(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"wrong\.yaml:\d+: routes\.auto\.candidates.*'sim-smal'.*sim-small", done.stderr)
    assert "Traceback" not in done.stderr


def ask(gateway: GatewayProcess, key: str, client: httpx.Client | None = None) -> httpx.Response:
    body = {"model": "sim-small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    post = client.post if client else httpx.post
    return post(f"{gateway.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


def status_within(gateway: GatewayProcess, key: str, status: int, seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if ask(gateway, key).status_code == status:
            return True
        time.sleep(0.05)
    return False

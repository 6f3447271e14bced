"""Settings change under a running gateway: all or nothing, and requests in flight keep what they began with."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import GatewayProcess, web

pytestmark = pytest.mark.system

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
admin_key: test-admin-key
providers:
  simulated: {dialect: simulated}
deployments:
  - {id: small, provider: simulated, upstream_model: sim-small, price: {input: 1, output: 1}, context_max: 128000}
tenants:
  - id: acme
    keys: [{name: prod, key: test-key-of-acme}]
    budgets: [{limit_usd: 100, window: day}]
"""
KEY = {"authorization": "Bearer test-key-of-acme"}


def ask(gateway: GatewayProcess, model: str, sim: str = "first_token_ms=0&output=10") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi."}], "metadata": {"sim": sim}}
    return web.post(f"{gateway.url}/v1/chat/completions", json=body, headers=KEY, timeout=30)


def until(true: Any, within_s: float = 15) -> None:
    ends = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.05)


def write(path: Path, text: str) -> None:
    """As editors do: a new file in the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_an_edit_is_taken_over_and_a_request_in_flight_ends_on_the_old_settings(start: Any) -> None:
    gateway: GatewayProcess = start(CONFIG)
    text = gateway.config.read_text()
    found: list[httpx.Response] = []
    slow = threading.Thread(target=lambda: found.append(ask(gateway, "small", "latency_ms=3000&output=10")))
    slow.start()
    until(lambda: 'tollgate_inflight_requests{deployment="small"} 1.0' in web.get(f"{gateway.url}/metrics").text)
    write(gateway.config, text.replace("id: small", "id: tiny"))
    until(lambda: ask(gateway, "tiny").status_code == 200)
    assert ask(gateway, "small").status_code == 404
    slow.join()
    assert found[0].status_code == 200
    assert found[0].headers["x-tollgate-deployment"] == "small"


def test_a_broken_file_changes_nothing_and_is_reported_with_its_line(start: Any) -> None:
    gateway: GatewayProcess = start(CONFIG)
    text = gateway.config.read_text()
    write(gateway.config, text.replace("upstream_model", "upstream_modl"))
    gateway.running.signal(signal.SIGHUP)
    until(lambda: "upstream_modl" in gateway.said())
    assert "did you mean" in gateway.said()
    assert ask(gateway, "small").status_code == 200


@pytest.mark.parametrize("name", ["price-list.json", "prices.yaml", "providers.yaml"])
def test_a_damaged_file_beside_the_settings_changes_nothing_and_later_edits_are_taken(start: Any, name: str) -> None:
    gateway: GatewayProcess = start(
        CONFIG.replace("providers:", "providers:\n  openai: {api_key: k}").replace(
            "tenants:", "  - {id: listed, provider: openai, upstream_model: gpt-4o-mini}\ntenants:"
        )
    )
    text, beside = gateway.config.read_text(), gateway.config.parent / name
    beside.write_bytes(b"\xff{not what it should be")
    write(gateway.config, text + "# edited\n")
    until(lambda: "settings not reloaded" in gateway.said())
    assert name in gateway.said()
    assert ask(gateway, "small").status_code == 200
    beside.unlink()
    write(gateway.config, text.replace("id: small", "id: tiny"))
    until(lambda: ask(gateway, "tiny").status_code == 200)


def test_sighup_reloads_every_worker(start: Any) -> None:
    gateway: GatewayProcess = start(CONFIG, workers=2)
    stamp = gateway.config.stat()
    with gateway.config.open("r+") as file:  # same size and time: only the signal can tell
        text = file.read()
        file.seek(0)
        file.write(text.replace("id: small", "id: smart"))
    os.utime(gateway.config, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    gateway.running.signal(signal.SIGHUP)

    def everywhere() -> bool:
        return all(ask(gateway, "smart").status_code == 200 for _ in range(10))

    until(everywhere)


def counted(gateway: GatewayProcess) -> float:
    lines = web.get(f"{gateway.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("tollgate_requests_total{"))


def test_any_worker_tells_the_metrics_of_all(start: Any) -> None:
    gateway: GatewayProcess = start(CONFIG, workers=2)
    for _ in range(30):
        with httpx.Client() as client:  # a connection of its own, so that both workers get some
            body = {"model": "small", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}
            assert client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=KEY).status_code == 200
    until(lambda: counted(gateway) == 30)  # a worker tells the others within a second
    assert [counted(gateway) for _ in range(6)] == [30] * 6


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_another_gateway_that_starts_and_stops_beside_it_takes_none_of_its_metrics(
    start: Any, tmp_path: Path, workers: int
) -> None:
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}  # as a host may set it for all that run there
    gateway: GatewayProcess = start(CONFIG, workers=workers, env=env)
    for _ in range(5):
        assert ask(gateway, "small").status_code == 200
    until(lambda: counted(gateway) == 5)
    other: GatewayProcess = start(CONFIG, workers=workers, env=env)
    for _ in range(3):
        assert ask(other, "small").status_code == 200
    until(lambda: counted(other) == 3)
    other.stop()
    assert counted(gateway) == 5
    assert ask(gateway, "small").status_code == 200
    until(lambda: counted(gateway) == 6)

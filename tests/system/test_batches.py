"""Batches on real processes: the official SDK as client, and a gateway that is killed anywhere on a batch's way."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dying
import openai
import pytest
from processes import GatewayProcess, Running, SimulatedProcess, web

pytestmark = pytest.mark.system

KEY = "test-key-of-acme"
ADMIN = {"authorization": "Bearer test-admin-key"}
CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
admin_key: test-admin-key
providers:
  inside: {dialect: simulated}
  chat: {dialect: openai, base_url: "PROVIDER/v1", api_key: upstream-key, options: {batches: openai}}
deployments:
  - {id: inside, provider: inside, upstream_model: "sim?output=5",
      price: {input: 1, output: 2, variants: {batch: {multiplier: 0.5}}}}
  - {id: chat, provider: chat, upstream_model: "sim-gpt?output=5",
      price: {input: 1, output: 2, variants: {batch: {multiplier: 0.5}}}}
tenants:
  - id: acme
    keys: [{name: prod, key: test-key-of-acme}]
    budgets: [{limit_usd: 1, window: total}]
"""
LINES = 25
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedProcess]:
    process = SimulatedProcess(tmp_path_factory.mktemp("provider"))
    process.start()
    yield process
    process.kill()


def client_of(gateway: GatewayProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)


def create(client: openai.OpenAI, model: str) -> Any:
    messages = [{"role": "user", "content": "Hi."}]
    body = {"model": model, "max_tokens": 10, "messages": messages}
    lines = [{"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(LINES)]
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.1)


def records(gateway: GatewayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web.get(f"{gateway.url}/admin/v1/records", headers=ADMIN, timeout=20).json()["data"]
    return found


def check_settled(gateway: GatewayProcess, id_: str) -> None:
    """Every line has one record, and the ledger holds their sum and nothing else."""
    client = client_of(gateway)
    until(lambda: client.batches.retrieve(id_).status == "completed")
    until(lambda: len(records(gateway)) == LINES)
    batch = client.batches.retrieve(id_)
    assert batch.output_file_id is not None
    output = client.files.content(batch.output_file_id).text.splitlines()
    assert sorted(int(json.loads(each)["custom_id"]) for each in output) == list(range(LINES))
    found = records(gateway)
    assert {(each["outcome"], each["service_tier"], each["tags"]["batch"]) for each in found} == {("ok", "batch", id_)}
    budgets = web.get(f"{gateway.url}/admin/v1/budgets", headers=ADMIN, timeout=20).json()["data"]
    (balance,) = [each["balance"] for each in budgets]
    assert balance["spent"]["nano_usd"] == sum(each["cost"]["nano_usd"] for each in found) > 0
    assert balance["reserved"]["nano_usd"] == 0


@pytest.mark.parametrize("model", ["inside", "chat"])
def test_the_official_sdk_runs_a_batch_from_upload_to_output(
    model: str, tmp_path: Path, provider: SimulatedProcess
) -> None:
    gateway = GatewayProcess(tmp_path, CONFIG.replace("PROVIDER", provider.url))
    try:
        gateway.start()
        batch = create(client_of(gateway), model)
        assert batch.status in ("validating", "in_progress")
        check_settled(gateway, batch.id)
    finally:
        gateway.kill()


@pytest.mark.slow
@pytest.mark.parametrize("point", dying.BATCH_POINTS)
def test_a_gateway_killed_at_any_point_of_a_batch_settles_each_line_once(
    point: str, tmp_path: Path, provider: SimulatedProcess
) -> None:
    gateway = GatewayProcess(tmp_path, CONFIG.replace("PROVIDER", provider.url))
    command = [sys.executable, dying.__file__, point, str(gateway.config), str(gateway.port)]
    mortal = Running(command, tmp_path, tmp_path / "mortal.log")
    try:
        mortal.start()
        mortal.wait_for(f"{gateway.url}/readyz")
        (tmp_path / "die").touch()
        id_ = create(client_of(gateway), "chat").id
        assert mortal.process is not None
        mortal.process.wait(60)
        (tmp_path / "die").unlink()
        gateway.start()
        check_settled(gateway, id_)  # once the lease of the dead one has ended
    finally:
        mortal.kill()
        gateway.kill()

"""A tenant that sends 50 times its share, and another's p99: gateway, provider and storm in processes of their own."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from pathlib import Path

import load
import pytest
from load import Seen, steady
from processes import GatewayProcess, SimulatedProcess

pytestmark = [pytest.mark.system, pytest.mark.slow]

CONFIG = """
database: sqlite:///{{folder}}/tollgate.db
spool: {{folder}}/spool
providers:
  p: {{dialect: openai, base_url: "{url}/v1", api_key: sk-x, retries_max: 0}}
deployments:
  - {{id: one, provider: p, upstream_model: "sim?latency_ms=100&first_token_ms=0&output=4",
      price: {{input: 1, output: 1}}, output_max: 1024, concurrency_max: 20}}
tenants:
  - {{id: storm, keys: [{{name: prod, key: key-of-the-storm}}]}}
  - {{id: calm, keys: [{{name: prod, key: key-of-the-calm}}]}}
"""
CALM_PER_S = 8.0
SLICE_S = 5.0
SLICES = 4
TIMES = 1.2


def test_a_storm_of_50_times_its_share_raises_anothers_p99_by_less_than_a_fifth(
    tmp_path: Path, provider: SimulatedProcess
) -> None:
    gateway = GatewayProcess(tmp_path, CONFIG.format(url=provider.url))
    gateway.start()
    alone: list[Seen] = []
    beside: list[Seen] = []
    refused = 0
    storm = [sys.executable, load.__file__, gateway.url, "key-of-the-storm", "one", f"{50 * CALM_PER_S}"]
    try:
        for _ in range(SLICES):  # in turn: what else the machine does is in both
            alone += asyncio.run(steady(gateway.url, "key-of-the-calm", "one", CALM_PER_S, SLICE_S))
            with subprocess.Popen([*storm, f"{2 * SLICE_S}"], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                found = asyncio.run(steady(gateway.url, "key-of-the-calm", "one", CALM_PER_S, 2 * SLICE_S))
                beside += [each for each in found if each.at > SLICE_S]  # the storm needs a moment to come
                statuses = json.loads(process.stdout.read())
            assert statuses.keys() == {"200", "503"}
            refused += statuses["503"]
    finally:
        gateway.kill()
    before, during = (1000 * statistics.quantiles([each.took for each in part], n=100)[98] for part in (alone, beside))
    print(f"p99 {before:.1f} ms alone, {during:.1f} ms beside a storm of which {refused} were refused")
    assert {each.status for each in beside} == {200}
    assert during < TIMES * before

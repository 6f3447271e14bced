"""Other people's clients, as docs/works-with.md tells their users to set them up, against a gateway process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from clients import node_clients, python_clients
from guides import ADDRESS, ROOT, Block, blocks
from processes import GatewayProcess, web
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.system, pytest.mark.slow]

PROGRAMS = {block.title: block for block in blocks(ROOT / "docs" / "works-with.md") if block.title}
CONFIG = PROGRAMS.pop("gateway.yaml").text
RUN_S = 240


@pytest.fixture(scope="module")
def gateway(start: Any) -> GatewayProcess:
    found: GatewayProcess = start(CONFIG)
    return found


def command(block: Block, program: Path) -> tuple[list[str], dict[str, str]]:
    """How the program is run, and with which environment."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    env |= {"HOME": str(program.parent), "LLM_USER_PATH": str(program.parent)}
    if program.suffix == ".mjs":
        return ["node", str(program)], env
    binaries = python_clients("aider.txt" if program.stem == "aider" else "clients.txt")
    if program.suffix == ".py":
        return [str(binaries / "python"), str(program)], env
    return ["bash", "-euo", "pipefail", str(program)], env | {"PATH": f"{binaries}:{env['PATH']}"}


def served(gateway: GatewayProcess) -> dict[str, float]:
    """Requests by how they ended, and what they cost."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(web.get(f"{gateway.url}/metrics").text):
        for sample in family.samples:
            key = {"tollgate_requests_total": "outcome", "tollgate_cost_usd_total": ""}.get(sample.name)
            if key is not None:
                name = sample.labels.get(key, "cost")
                found[name] = found.get(name, 0.0) + sample.value
    return found


@pytest.mark.parametrize("title", PROGRAMS)
def test_a_client_works_as_the_page_says(gateway: GatewayProcess, title: str, tmp_path: Path) -> None:
    block = PROGRAMS[title]
    folder = node_clients() if title.endswith(".mjs") else tmp_path
    program = folder / title
    program.write_text(ADDRESS.sub(f"127.0.0.1:{gateway.port}", block.text))
    run, env = command(block, program)
    before = served(gateway)
    done = subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    after = served(gateway)
    assert after["ok"] > before.get("ok", 0)
    assert after["cost"] > before.get("cost", 0)
    assert {outcome for outcome in after if after[outcome] > before.get(outcome, 0)} == {"ok", "cost"}


def test_every_client_the_page_tells_of_has_a_program() -> None:
    sections = (ROOT / "docs" / "works-with.md").read_text().split("\n## ")[1:]
    silent = [section.partition("\n")[0] for section in sections if 'title="' not in section]
    assert silent == ["Not run here"]

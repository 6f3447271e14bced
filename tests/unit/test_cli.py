from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from gateway import __version__
from gateway.cli import app
from gateway.cli.serve import demo_key
from gateway.cli.spend import moment_of
from gateway.sql.database import Database
from gateway.sql.migrate import upgrade
from gateway.sql.records import row, write
from gateway.types import NANO, Bucket, Outcome, Record

SETTINGS = """
server: {{host: 127.0.0.1, port: 8099}}
database: sqlite:///{folder}/test.db
providers:
  sim: {{dialect: simulated}}
deployments:
  - {{id: small, provider: sim, upstream_model: sim-small, price: {{input: 1, output: 2}}, output_max: 4096}}
  - {{id: large, provider: sim, upstream_model: sim-large, price: {{input: 10, output: 20}}, output_max: 4096}}
routes:
  auto:
    candidates: [large, small]
    baseline: large
    policies: [{{output_cap: {{default: 1000}}}}, cheapest]
tenants:
  - {{id: demo, keys: [{{name: laptop, key: demo-key-0123456789}}], models: [auto, small]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(SETTINGS.format(folder=tmp_path))
    return path


def run(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=text)


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_version_is_told() -> None:
    assert run("--version").stdout == f"tollgate {__version__}\n"


def test_starting_imports_nothing_heavy() -> None:
    code = "import sys, gateway.cli; print([name for name in %r if name in sys.modules])"
    heavy = ["pydantic", "sqlalchemy", "httpx", "tiktoken", "fastapi", "uvicorn", "genai_prices", "prometheus_client"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# check


def test_a_right_file_is_said_to_be_right(config: Path) -> None:
    result = run("check", config)
    assert result.exit_code == 0
    assert "is right (providers 1, deployments 2, routes 1, tenants 1)." in result.stdout
    assert told(run("check", config, "--json"))["ok"] is True


def test_every_problem_is_told_and_the_status_is_1(config: Path) -> None:
    text = config.read_text().replace("candidates: [large", "candidates: [larg").replace("output_cap", "output_cup")
    config.write_text(text)
    result = run("check", config)
    assert result.exit_code == 1
    assert "'larg'" in result.stderr
    assert "output_cup" in result.stderr
    found = run("check", config, "--json")
    assert found.exit_code == 1
    assert len(json.loads(found.stdout)["problems"]) >= 2


def test_a_file_that_is_not_there_is_a_problem_and_not_a_traceback(tmp_path: Path) -> None:
    for arguments in (["check", tmp_path / "no.yaml"], ["keys", "list", "-c", tmp_path / "no.yaml"]):
        result = run(*arguments)
        assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
        assert "no.yaml" in result.stderr


# explain

BODY = {"model": "auto", "messages": [{"role": "user", "content": "What is a token?"}]}


def test_a_request_is_explained(config: Path, tmp_path: Path) -> None:
    asked = tmp_path / "request.json"
    asked.write_text(json.dumps(BODY))
    words = run("explain", asked, "-c", config).stdout
    assert words.index("1. small (sim: sim-small)") < words.index("2. large (sim: sim-large)")
    assert "Why: output capped at 1000; cheapest." in words
    assert "this saves about" in words
    plan = told(run("explain", asked, "-c", config, "--json"))
    assert [candidate["deployment"] for candidate in plan["candidates"]] == ["small", "large"]
    assert plan["candidates"][0]["input_tokens_expected"] == 12
    assert plan["reserve_usd"] == "0.02012"


def test_a_request_can_come_from_stdin_in_either_format(config: Path) -> None:
    body = json.dumps({**BODY, "max_tokens": 50})
    for format_ in ("chat", "messages"):
        plan = told(run("explain", "-", "-c", config, "--json", "--format", format_, text=body))
        assert plan["candidates"][0]["output_tokens_cap"] == 50


@pytest.mark.parametrize(
    ("body", "options", "complaint"),
    [
        ("{", (), "400 invalid_request: The body is not valid JSON"),
        (json.dumps({**BODY, "model": "autoo"}), (), "404 model_not_found"),
        (json.dumps({**BODY, "model": "large"}), (), "403 model_not_permitted"),
        (json.dumps({**BODY, "max_tokens": 99_999}), (), "small answers at most 4096 tokens"),
        (json.dumps(BODY), ("--tenant", "nobody"), "no tenant 'nobody'; there are: demo"),
    ],
)
def test_what_cannot_be_planned_says_why(config: Path, body: str, options: tuple[str, ...], complaint: str) -> None:
    result = run("explain", "-", "-c", config, *options, text=body)
    assert result.exit_code == 1
    assert complaint in result.stderr
    failed = run("explain", "-", "-c", config, "--json", *options, text=body)
    assert complaint in json.loads(failed.stdout)["error"]


# keys


def test_a_key_is_made_listed_rotated_and_revoked(config: Path) -> None:
    made = told(
        run("keys", "create", "acme", "--new-tenant", "--name", "prod", "--model", "auto", "-c", config, "--json")
    )
    assert made["secret"].startswith("tg-")
    assert (made["tenant"], made["name"], made["models"]) == ("acme", "prod", ["auto"])
    rotated = told(run("keys", "rotate", made["id"], "--overlap-s", 60, "-c", config, "--json"))
    assert rotated["secret"] != made["secret"]
    assert (rotated["tenant"], rotated["name"], rotated["models"]) == ("acme", "prod", ["auto"])
    assert run("keys", "revoke", rotated["id"], "-c", config).exit_code == 0
    listed = {key["id"]: key for key in told(run("keys", "list", "-c", config, "--json"))}
    assert listed[made["id"]]["expires"] == pytest.approx(time.time() + 60, abs=30)
    assert listed[rotated["id"]]["revoked"] is not None
    assert "secret" not in json.dumps(list(listed.values()))
    table = run("keys", "list", "--tenant", "acme", "-c", config).stdout
    assert made["id"] in table
    assert rotated["id"] in table


def test_a_secret_is_shown_once_and_only_its_hash_is_kept(config: Path, tmp_path: Path) -> None:
    shown = run("keys", "create", "acme", "--new-tenant", "-c", config).stdout
    secret = shown.splitlines()[-1]
    assert secret.startswith("tg-")
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("test.db*"))
    assert secret.encode() not in kept
    assert hashlib.sha256(secret.encode()).digest() in kept


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", "acme"], "no stored tenant 'acme'"),
        (["create", "demo"], "Tenant 'demo' stands in"),
        (["revoke", "k_1"], "no stored key 'k_1'"),
        (["rotate", "k_1"], "no stored key 'k_1'"),
    ],
)
def test_a_key_command_that_cannot_be_says_why(config: Path, arguments: list[str], complaint: str) -> None:
    result = run("keys", *arguments, "-c", config)
    assert result.exit_code == 1
    assert complaint in result.stderr


def test_a_secret_is_hashed_as_the_settings_want_it() -> None:
    digest = hashlib.sha256(b"demo-key-0123456789").hexdigest()
    assert run("keys", "hash", text="demo-key-0123456789\n").stdout == f"hash: sha256:{digest}\n"
    new = told(run("keys", "hash", "--new", "--json"))
    assert new["hash"] == f"sha256:{hashlib.sha256(new['secret'].encode()).hexdigest()}"
    assert run("keys", "hash", text="short\n").exit_code == 1


# spend


def record(name: str, tenant: str, cost: int | None, at: float) -> Record:
    return Record(
        id=name,
        version=1,
        at=at,
        tenant=tenant,
        key="k",
        endpoint="chat",
        model="auto",
        route="auto",
        deployment="small",
        provider="sim",
        upstream_model="sim-small",
        outcome=Outcome.OK,
        cost=cost,
        baseline_cost=2 * NANO,
        tokens={Bucket.INPUT: 1000, Bucket.OUTPUT: 10},
    )


@pytest.fixture
def spent(config: Path, tmp_path: Path) -> Path:
    url = f"sqlite:///{tmp_path}/test.db"
    upgrade(url)
    now = time.time()
    rows = [row(record("a", "acme", NANO // 2, now)), row(record("b", "acme", None, now))]
    rows += [row(record("c", "other", NANO // 4, now)), row(record("d", "acme", NANO, now - 40 * 86_400))]
    database = Database(url)
    with database.engine.begin() as connection:
        write(connection, rows)
    database.close()
    return config


def test_spend_is_summed_by_tenant_model_and_day(spent: Path) -> None:
    found = told(run("spend", "-c", spent, "--json"))
    assert [(group["tenant"], group["model"], group["cost_usd"], group["unknown"]) for group in found] == [
        ("acme", "auto", "0.50", 1),
        ("other", "auto", "0.25", 0),
    ]
    assert found[0]["day"] == time.strftime("%Y-%m-%d", time.gmtime())
    table = run("spend", "-c", spent).stdout
    assert "2,000" in table
    assert "0.50" in table


def test_spend_is_narrowed_by_tenant_and_time_and_grouped_as_asked(spent: Path) -> None:
    by_tenant = told(run("spend", "-c", spent, "--by", "tenant", "--since", "60d", "--json"))
    assert {group["tenant"]: group["cost_usd"] for group in by_tenant} == {"acme": "1.50", "other": "0.25"}
    (other,) = told(run("spend", "-c", spent, "--by", "deployment", "--tenant", "other", "--json"))
    assert (other["deployment"], other["requests"]) == ("small", 1)
    assert run("spend", "-c", spent, "--until", "50d", "--since", "60d").stdout == "Spend since 60d: none.\n"


@pytest.mark.parametrize("option", [("--by", "colour"), ("--since", "yesterday"), ("--until", "1x")])
def test_a_grouping_or_time_that_is_none_is_named(spent: Path, option: tuple[str, str]) -> None:
    result = run("spend", "-c", spent, *option)
    assert result.exit_code == 1
    assert option[1] in result.stderr


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("24h", 1e9 - 86_400),
        ("2w", 1e9 - 14 * 86_400),
        ("2026-11-01", 1_793_491_200),
        ("2026-11-01T02:00+02:00", 1793491200),
    ],
)
def test_a_time_is_ago_or_a_date(text: str, moment: float) -> None:
    assert moment_of(text, now=1e9) == moment


# serve


def test_only_a_key_for_demonstrations_is_ever_printed(config: Path) -> None:
    assert demo_key(config) == "demo-key-0123456789"
    config.write_text(config.read_text().replace("demo-key-0123456789", "real-key-0123456789"))
    assert demo_key(config) == "$TOLLGATE_KEY"

"""`tollgate prices`: what is shown, what a newer list may change, and the past priced anew."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from gateway import settings
from gateway.cli import app
from gateway.configuration import price_list
from gateway.sql.database import engine
from gateway.sql.migrate import upgrade
from gateway.sql.records import Filter, page, row, write
from gateway.types import Outcome, Record

AT = datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp()
SETTINGS = """
database: sqlite:///{folder}/test.db
providers:
  openai: {{api_key: k}}
deployments:
  - {{id: mini, provider: openai, upstream_model: gpt-4o-mini}}
tenants:
  - {{id: demo, keys: [{{name: laptop, key: demo-key-0123456789}}]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(SETTINGS.format(folder=tmp_path))
    return path


def model(name: str, price: float) -> dict[str, Any]:
    return {"id": name, "match": {"equals": name}, "prices": {"input_mtok": price, "output_mtok": 4 * price}}


def a_list(path: Path, *models: dict[str, Any]) -> Path:
    book = {"id": "openai", "name": "OpenAI", "api_pattern": "https://api", "models": list(models)}
    path.write_text(json.dumps([book]))
    return path


def run(config: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["prices", *map(str, arguments), "--config", str(config)])


def test_a_price_is_shown_with_where_it_comes_from(config: Path) -> None:
    [found] = json.loads(run(config, "show", "mini").stdout)
    assert (found["rates"]["input"], found["rates"]["output"]) == ("0.15", "0.60")
    assert "genai-prices" in found["source"]


def test_a_list_that_would_lose_models_is_refused_and_says_which(config: Path, tmp_path: Path) -> None:
    found = run(config, "refresh", a_list(tmp_path / "new.json", model("gpt-4o-mini", 0.15)))
    assert found.exit_code == 1
    assert "would be lost" in found.output
    assert not (tmp_path / price_list.FILE).exists()


def test_a_list_that_changes_many_prices_is_refused_and_one_that_changes_few_is_taken(
    config: Path, tmp_path: Path
) -> None:
    many = [model(f"m{i}", 1) for i in range(40)]
    a_list(tmp_path / price_list.FILE, *many, model("gpt-4o-mini", 0.15))
    dear = a_list(tmp_path / "dear.json", *[model(f"m{i}", 2) for i in range(40)], model("gpt-4o-mini", 0.15))
    found = run(config, "refresh", dear)
    assert found.exit_code == 1
    assert "40 of 41 prices would change" in found.output
    fine = a_list(tmp_path / "fine.json", *many, model("gpt-4o-mini", 0.30), model("newest", 5))
    assert "1 changed\n  openai/gpt-4o-mini" in run(config, "diff", fine).stdout
    assert run(config, "refresh", fine).exit_code == 0
    assert settings.load(config).deployments["mini"].price.rates["input"] == 300_000_000


def test_what_is_no_list_is_refused(config: Path, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text('{"error": "not found"}')
    found = run(config, "refresh", tmp_path / "new.json", "--force")
    assert found.exit_code == 1
    assert "no price list" in found.output


def test_a_price_below_zero_is_refused_by_force_too(config: Path, tmp_path: Path) -> None:
    found = run(config, "refresh", a_list(tmp_path / "new.json", model("gpt-4o-mini", -0.15)), "--force")
    assert found.exit_code == 1
    assert "below zero" in found.output
    assert not (tmp_path / price_list.FILE).exists()


def test_records_are_priced_anew_beside_what_was_charged_and_that_is_logged(config: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    upgrade(url)
    known = {"version": 1, "tenant": "demo", "key": "k", "endpoint": "chat", "model": "mini", "route": ""}
    known |= {"deployment": "mini", "provider": "openai", "upstream_model": "gpt-4o-mini", "outcome": Outcome.OK}
    made = engine(url, 1)
    usage = {"input": 1_000_000}
    recorded = [
        Record(id="in", at=AT, tokens=usage, cost=140_000_000, overhead_cost=7, **known),
        Record(
            id="in.shadow",
            at=AT,
            tokens=usage,
            cost=140_000_009,
            calculated_cost=140_000_000,
            overhead_cost=140_000_009,
            shadow_of="in",
            **known,
        ),
        Record(id="out", at=AT + 86_400, tokens=usage, cost=140_000_000, **known),
    ]
    with made.connect().execution_options(write=True) as own, own.begin():
        write(own, map(row, recorded))
    found = run(config, "rerate", "--from", "2026-11-02", "--to", "2026-11-03")
    assert "2 records, 2 with another cost, 0 that cannot be priced" in found.stdout
    with made.connect() as own:
        costs = {each["id"]: (each["cost"], each["rerated_cost"]) for each in page(own, Filter(), 10)}
        shadow = 140_000_009, 150_000_009  # all of it is overhead, and counts once
        assert costs == {"in": (140_000_000, 150_000_007), "in.shadow": shadow, "out": (140_000_000, None)}
        [(actor, action)] = own.exec_driver_sql("SELECT actor, action FROM audit").all()
        assert (actor, action) == ("cli", "prices.rerate")
    made.dispose()

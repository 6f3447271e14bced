"""The dashboards are what their source makes, ask only for what is declared, and are complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import COUNTERS, GAUGES, HISTOGRAMS, INFO, NAMES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "grafana"
DASHBOARDS = sorted(FOLDER.glob("*.json"))
RECORDED = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load((ROOT / "config" / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}
SERIES = re.compile(r"[a-z0-9_]*:?\btollgate_[a-z0-9_:]+")
LABELS = re.compile(r"(?:by|on|group_left|without) \(([^)]*)\)")
OUR_LABELS = {label for labels, *_ in [*COUNTERS.values(), *GAUGES.values()] for label in labels} | {
    "deployment",
    "provider",
    "model",
    "le",
    "instance",
}


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


ASKED = [
    pytest.param(panel, target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")
    for path in DASHBOARDS
    for panel in panels(path)
    for target in panel["targets"]
]


def test_the_four_dashboards_are_here() -> None:
    assert {path.stem for path in DASHBOARDS} == {"spend", "routing", "reliability", "tenant"}


def test_the_json_is_what_its_source_makes() -> None:
    code = "import generate; print([path.name for path, text in generate.files().items() if path.read_text() != text])"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", "run: python config/grafana/generate.py"


@pytest.mark.parametrize(("panel", "expr"), ASKED)
def test_a_query_asks_only_for_metrics_that_are_declared_and_series_that_are_recorded(
    panel: dict[str, Any], expr: str
) -> None:
    asked = SERIES.findall(expr)
    assert asked
    for name in asked:
        bare = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in RECORDED if ":" in name else bare in HISTOGRAMS or name in NAMES


@pytest.mark.parametrize(("panel", "expr"), ASKED)
def test_a_query_groups_only_by_labels_there_are(panel: dict[str, Any], expr: str) -> None:
    named = {label.strip() for labels in LABELS.findall(expr) for label in labels.split(",") if label.strip()}
    assert named <= OUR_LABELS
    shown = {label for target in panel["targets"] for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
    assert shown <= OUR_LABELS
    assert INFO in NAMES


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_has_a_unit_a_description_and_a_place_of_its_own(path: Path) -> None:
    found = panels(path)
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in found)
    titles = [panel["title"] for panel in found]
    assert len(titles) == len(set(titles))
    cells = [
        (x, y)
        for panel in found
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


UNITS = {"currencyUSD", "percentunit", "reqps", "ops", "s", "d", "none"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_read_at_a_glance(path: Path) -> None:
    for panel in panels(path):
        defaults, title = panel["fieldConfig"]["defaults"], panel["title"]
        assert defaults["unit"] in UNITS, title
        assert defaults["noValue"] == "none", title
        assert len(panel["description"]) <= 240, title
        named = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(named)) == len(named), title
        assert (named == [""]) is (panel["type"] == "stat"), "one figure needs no name, and several do"
        assert panel["type"] == "stat" or len(title) <= 40, title
        if "thresholds" in defaults:
            steps = defaults["thresholds"]["steps"]
            values = [step["value"] for step in steps]
            assert values[0] is None, title
            assert values[1:] == sorted(values[1:]), title
            assert {step["color"] for step in steps} <= {"green", "orange", "red"}, title


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_begins_with_figures_keeps_its_variables_and_leads_to_the_others(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["panels"][0]["type"] == "row"
    assert board["panels"][1]["type"] in ("stat", "timeseries")
    (link,) = board["links"]
    assert (link["tags"], link["asDropdown"], link["includeVars"], link["keepTime"]) == (["tollgate"], True, True, True)
    assert board["description"]
    names = [each["name"] for each in board["templating"]["list"]]
    assert names[0] == "datasource"
    text = path.read_text()
    assert all(f"${name}" in text or f"${{{name}}}" in text for name in names), "a variable that nothing uses"
    assert set(re.findall(r"\$([a-z]+)\b", text)) <= {*names, "__range", "__rate_interval"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_row_of_panels_has_a_hole(path: Path) -> None:
    lines: dict[int, list[tuple[int, int]]] = {}
    for panel in panels(path):
        place = panel["gridPos"]
        lines.setdefault(place["y"], []).append((place["x"], place["x"] + place["w"]))
    for line in lines.values():
        ends = [0, *(end for _, end in sorted(line))]
        assert [start for start, _ in sorted(line)] == ends[:-1], line

"""What the documents say is tried, so that it stays true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from reference import PAGES
from reference.commands import commands

from gateway.settings import parse

ROOT = Path(__file__).parents[2]
GENERATED = {ROOT / "docs" / path for path in PAGES}
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_configuration_in_the_readme_is_right() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for block in blocks:
        found = parse(block, {"OPENAI_API_KEY": "sk-test", "ACME_KEY_SHA256": "0" * 64})
        assert list(found.routes) == ["auto"]
    assert blocks


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_leads_somewhere(document: Path) -> None:
    links = {link for link in re.findall(r"\]\(([^)#]+)", document.read_text()) if "://" not in link}
    places = {link: (document.parent / link).resolve() for link in links}
    assert [link for link, place in places.items() if not place.exists() and place not in GENERATED] == []


def test_a_test_that_is_named_exists() -> None:
    named: set[tuple[str, str]] = set()
    for document in (*DOCUMENTS, ROOT / "SECURITY.md"):
        named |= set(re.findall(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`", document.read_text()))
        assert re.findall(r"`tests/(?![\w/]+\.py(?:::[\w:]+)?`)[^`]*\.py[^`]*`", document.read_text()) == [], document
        assert re.findall(r"`(?!tests/)[\w/]*test_\w+\.py[^`]*`", document.read_text()) == [], document
    assert len(named) > 100
    missing = [
        f"{file}::{test}"
        for file, test in sorted(named)
        if not (ROOT / file).exists() or (test and not defines((ROOT / file).read_text(), test))
    ]
    assert missing == []


def defines(text: str, test: str) -> bool:
    """Whether the file has the test, which may be of a class: TestThis::test_that."""
    group, _, name = test.rpartition("::")
    if group and not re.search(rf"^class {group}\b", text, re.MULTILINE):
        return False
    return re.search(rf"^{'    ' if group else ''}(?:async )?def {name}\(", text, re.MULTILINE) is not None


@pytest.mark.parametrize("page", sorted((ROOT / "docs/pitfalls").glob("*.md")), ids=lambda path: path.name)
def test_what_went_wrong_elsewhere_has_a_test_or_a_reason_why_none_could_fail(page: Path) -> None:
    rows = [line.strip("|").split("|") for line in page.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    for row in rows:
        assert len(row) == 3, row
        told, here, test = (cell.strip() for cell in row)
        if told != "what went wrong elsewhere":
            assert here
            assert re.match(r"`tests/[\w/]+\.py::\w+|cannot apply: \w", test), told


def test_the_benchmark_page_shows_what_its_clients_measured_less_what_they_measure_without_a_gateway() -> None:
    rows = json.loads((ROOT / "docs/benchmark.json").read_text())["rows"]

    def best(part: str, contender: str, field: str) -> float:
        return min(row[field] for row in rows if (row["part"], row["contender"]) == (part, contender))

    page = (ROOT / "docs/benchmark.md").read_text().splitlines()
    line = next(line for line in page if line.startswith("| tollgate |"))
    shown = [("alone: long", "p50"), ("alone: long", "p99"), ("half load: long", "p50"), ("first token", "first_p50")]
    for part, field in shown:
        assert f"| {best(part, 'tollgate', field) - best(part, 'direct', field):.2f} |" in line


def test_every_make_target_has_a_word_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert [target for target in phony[1].split() if not re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)] == []


def test_the_demonstration_of_the_readme_is_the_one_that_is_configured() -> None:
    readme, demo = (ROOT / "README.md").read_text(), (ROOT / "config/gateway.yaml").read_text()
    for said in ("demo-key-0123456789", "8080"):
        assert said in readme
        assert said in demo


def test_every_command_stands_in_the_readme() -> None:
    table = (ROOT / "README.md").read_text().partition("| command | what it does |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`(?:tollgate )?([a-z]+)", table))
    assert {name.split()[1] for name, _ in commands()} <= told

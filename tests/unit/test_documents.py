"""What the documents say is tried, so that it stays true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings import parse

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_configuration_in_the_readme_is_right() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for block in blocks:
        found = parse(block.replace("sha256:...", f"sha256:{'0' * 64}"), {"OPENAI_API_KEY": "sk-test"})
        assert list(found.routes) == ["auto"]
    assert blocks


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


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

"""The documentation builds without a warning, every link leads somewhere, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_S = 300

pytestmark = pytest.mark.system


class Page(HTMLParser):
    """What a browser would fetch to show a page, and the address of every link in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "a":
            self.links.append(said.get("href") or "")
        elif tag == "link" and said.get("rel") != "canonical":
            self.fetched.append(said.get("href") or "")
        elif said.get("src"):
            self.fetched.append(said["src"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in site.rglob("*.html")}


def test_a_page_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = {address for page in pages(site).values() for address in page.fetched}
    assert fetched
    assert not [address for address in fetched if "//" in address]
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert "url(http" not in styles
    assert "@import" not in styles


def test_every_page_is_in_the_navigation(site: Path) -> None:
    made = {name for name in pages(site) if name != "404.html"}
    reached = {link.partition("#")[0] for link in pages(site)["index.html"].links}
    assert {"reference/configuration.html", "guides/cap-a-tenant.html", "runbooks/budget.html"} <= made
    assert made - reached == set()


def test_every_link_to_a_page_finds_it(site: Path) -> None:
    found = pages(site)
    for name, page in found.items():
        for link in page.links:
            target = link.partition("#")[0]
            if target and "//" not in target and not target.startswith(("mailto:", "/")):
                assert (site / name).parent.joinpath(target).resolve().exists(), f"{name} links to {link}"

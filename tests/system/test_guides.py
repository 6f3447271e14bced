"""The README and the guides are true: every command and snippet in them is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from guides import ROOT, Reader, blocks, pages

pytestmark = pytest.mark.system


PAGES = [
    pytest.param(page, marks=() if page.parent == ROOT else pytest.mark.slow, id=page.relative_to(ROOT).as_posix())
    for page in pages()
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_to_the_letter(page: Path, tmp_path: Path) -> None:
    Reader(tmp_path).follow(page)


def test_what_is_not_run_says_why() -> None:
    reasons = {block.told for page in pages() for block in blocks(page) if block.mark == "not run"}
    assert reasons <= {
        "needs a container engine",
        "needs a cluster",
        "needs a file of outcomes",
        "needs the artifact trained above",
        "needs a month that is over",
        "needs your litellm.yaml",
    }


def test_a_page_that_is_wrong_is_found(tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    for number, text in enumerate(
        (
            "```sh\nfalse\n```\n",
            "```python\nraise SystemExit(1)\n```\n",
            "```yaml\nprovider: {}\n```\n",
            "```sh\ncurl http://127.0.0.1:8080/\n```\n",
            "<!-- not run: x -->\n```sh\nif\n```\n",
        )
    ):
        page.write_text(text)
        with pytest.raises(AssertionError, match=r"wrong\.md, line"):
            Reader(tmp_path / str(number)).follow(page)

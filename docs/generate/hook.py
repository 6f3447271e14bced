"""mkdocs: adds the reference, which is written from the code, and the pages that no section of mkdocs.yml names."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from reference import PAGES

COLLECTED = {"Runbooks": "runbooks", "Decisions": "decisions"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Completes the navigation: a page that nobody can reach is not documentation."""
    docs = Path(config.docs_dir)
    config.nav = list(config.nav or [])
    config.nav.append({"Reference": [{title: path} for path, (title, _) in PAGES.items()]})
    for title, folder in COLLECTED.items():
        config.nav.append({title: [path.relative_to(docs).as_posix() for path in sorted((docs / folder).glob("*.md"))]})
    named = set(_paths(config.nav))
    found = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    rest: list[object] = [path for path in found if path not in named and not path.startswith("generate/")]
    if rest:
        config.nav.append({"More": rest})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for path, (title, page) in PAGES.items():
        files.append(File.generated(config, path, content=f"# {title}\n\n{page()}\n"))
    return files


def _paths(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ()
    return [path for each in inner for path in _paths(each)]

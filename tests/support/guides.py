"""Runs the documentation: every fenced block of a page, in order, as its reader would, in a directory of its own.

```sh                            run; `make run` and `tollgate serve ...` start a gateway that stays
```python                        run
```yaml title="name"             written to the file, as is any other language with a title
```yaml                          a part of gateway.yaml: held to its schema
```json, ```toml                 read
<!-- not run: why -->            before a block: its syntax is checked, no more
<!-- refused: code -->           before a block: the gateway has to answer with this error
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from processes import GatewayProcess

from gateway.configuration.presets import fitted
from gateway.configuration.schema import File
from gateway.document import read

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>not run|refused): (?P<told>[^>]+) -->\n)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
STARTS = re.compile(r"^(make run|tollgate serve(?: --config (?P<config>\S+))?)$", re.MULTILINE)
ADDRESS = re.compile(r"127\.0\.0\.1:8080")
ILLUSTRATIONS = {"", "text"}
CURL = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
BLOCK_S = 120


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block and what is said of it."""

    language: str
    title: str
    text: str
    mark: str  # "", "not run" or "refused"
    told: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Every block of the page, in order."""
    text = page.read_text()
    found = [
        Block(
            each["language"],
            each["title"] or "",
            each["text"],
            each["mark"] or "",
            each["told"] or "",
            text.count("\n", 0, each.start("text")),
        )
        for each in FENCE.finditer(text)
    ]
    assert text.count("\n```") == 2 * len(found) - text.startswith("```"), f"{page}: a block is not closed"
    return found


@dataclass(slots=True)
class Reader:
    """Somebody who follows a page to the letter."""

    folder: Path
    gateways: list[GatewayProcess] = field(default_factory=list)

    def follow(self, page: Path) -> None:
        """Does what every block says."""
        shutil.copytree(ROOT / "config", self.folder / "config", dirs_exist_ok=True)
        try:
            for block in blocks(page):
                try:
                    self.do(block)
                except AssertionError as error:
                    raise AssertionError(f"{page.name}, line {block.line}: {error}") from None
        finally:
            for gateway in self.gateways:
                gateway.kill()

    def do(self, block: Block) -> None:
        """One block."""
        if block.language in ILLUSTRATIONS:
            return
        if block.title:
            (self.folder / block.title).write_text(block.text)
        if block.mark == "not run" or block.title:
            parse(block)
        elif block.language == "sh":
            self.shell(block)
        elif block.language == "python":
            (self.folder / "snippet.py").write_text(self.addressed(block.text))
            self.run([sys.executable, "snippet.py"], block)
        elif block.language == "yaml":
            part_of_the_configuration(block.text)
        else:
            parse(block)

    def shell(self, block: Block) -> None:
        """Commands, with a gateway where one is started or asked."""
        if start := STARTS.search(block.text):
            rest = STARTS.sub("", block.text).strip()
            if rest:
                self.run(["bash", "-euo", "pipefail", "-c", CURL + rest], block)
            self.start(self.folder / (start["config"] or "config/gateway.yaml"))
            return
        self.run(["bash", "-euo", "pipefail", "-c", CURL + self.addressed(block.text)], block)

    def start(self, config: Path) -> None:
        """A gateway with this configuration, on a port of its own."""
        gateway = GatewayProcess(self.folder, config.read_text())
        self.gateways.append(gateway)
        gateway.start()

    def addressed(self, text: str) -> str:
        """The text with the address of the gateway that runs here."""
        if not ADDRESS.search(text):
            return text
        assert self.gateways, "it asks a gateway, and none has been started on this page"
        return ADDRESS.sub(f"127.0.0.1:{self.gateways[-1].port}", text)

    def run(self, command: list[str], block: Block) -> None:
        """Ends well, or with the refusal that is announced."""
        binaries = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
        env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=env | {"PATH": binaries},
            capture_output=True,
            text=True,
            timeout=BLOCK_S,
            check=False,
        )
        said = f"{block.text}\n{done.stdout}\n{done.stderr}"
        if block.mark == "refused":
            assert json.loads(done.stdout)["error"]["code"] == block.told, said
        else:
            assert done.returncode == 0, said


def parse(block: Block) -> None:
    """The block is what its language says, whatever it would do."""
    if block.language == "sh":
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif block.language == "python":
        ast.parse(block.text)
    elif block.language == "yaml":
        assert list(yaml.safe_load_all(block.text))
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    else:
        raise AssertionError(f"nobody here knows {block.language}")


class _Anything(dict[str, str]):
    """An environment where every variable is set."""

    def get(self, name: str, default: object = None) -> str:  # type: ignore[override]
        return "0" * 64 if name.endswith("SHA256") else f"https://{name.lower()}.example.com"


def part_of_the_configuration(text: str) -> None:
    """What may stand in gateway.yaml, as far as a part of it can be judged."""
    document = read(text, _Anything(), "snippet")
    fitted(document, File)
    assert not document.problems, document.problems


def pages() -> list[Path]:
    """README and everything in docs that people follow."""
    folders = [sorted((ROOT / "docs" / folder).glob("*.md")) for folder in ("guides", "concepts")]
    return [ROOT / "README.md", ROOT / "docs" / "index.md", *folders[0], *folders[1], ROOT / "docs" / "scaling.md"]

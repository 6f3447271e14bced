"""What the package knows of vendors, prices and models."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from gateway.configuration.presets import PRICES, PROVIDERS, known


def test_what_is_shipped_reads_the_same_as_an_operators_own_file_of_the_same_words(tmp_path: Path) -> None:
    with as_file(files("gateway") / "data") as data:
        for name in (PROVIDERS, PRICES):
            shutil.copyfile(data / name, tmp_path / name)
    shipped, both = known(None, {}), known(tmp_path, {})
    assert len(shipped.providers) > 20
    assert both.providers == shipped.providers
    assert both.prices == (*shipped.prices, *shipped.prices)
    assert both.models == (*shipped.models, *shipped.models)

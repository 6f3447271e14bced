"""A report over a month of many records is quick, whatever it groups by: on a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
RECORDS = 300_000
"""docs/scaling.md has the figures of 10 million."""


def test_no_grouping_of_a_month_takes_two_seconds_and_all_add_up(postgres_url: str) -> None:
    command = [sys.executable, "-m", "bench.reports", "--url", postgres_url, "--records", str(RECORDS), "--within", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "requests, " in done.stdout

"""`tollgate replay` on records that a gateway has just written."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from harness import config, gateway
from typer.testing import CliRunner

from gateway.cli import app


async def test_recorded_requests_are_priced_anew_from_the_database(tmp_path: Path) -> None:
    text = config(tmp_path)
    async with gateway(text) as served:
        for n in range(3):
            assert (await served.chat(text=f"{n}")).status_code == 200
        spent = sum(record.cost or 0 for record in await served.settled())
    now, then = tmp_path / "now.yaml", tmp_path / "then.yaml"
    now.write_text(text)
    then.write_text(text.replace("price: {input: 1, output: 1}", "price: {input: 2, output: 2}"))
    for under, times in ((now, 1), (then, 2)):
        arguments = ["replay", "--config", str(now), "--under", str(under), "--json"]
        ran = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        assert ran.exit_code == 0, ran.output
        told = json.loads(ran.stdout)
        assert (told["requests"], told["moved"], told["error_share"]) == (3, 0, 0.0)
        assert round(float(told["cost_usd"]) * 1e9) == times * spent == times * round(float(told["cost_was_usd"]) * 1e9)

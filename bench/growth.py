"""How the cost of a request grows with what there is: prompt, tenants, deployments, budgets, keys.

    python -m bench.growth

Writes `docs/growth.json` and `docs/growth.png`.  In process, so the figures are CPU of the gateway's own code alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvloop
from msgspec import structs

from bench import requests
from bench.contenders import ROOT
from bench.inside import Change, inside, secret, with_budgets, with_deployments, with_payers
from gateway.settings import Settings

WORDS = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
]
Points = dict[str, list[tuple[int, float]]]


def prompt(tokens: int, salt: int) -> bytes:
    """About so many tokens, in messages of at most 2,000, as a conversation is; other words for another `salt`."""
    messages = []
    for start in range(0, tokens, 2000):
        count = min(2000, tokens - start) // 2
        words = (f"{WORDS[(n * 7 + salt) % len(WORDS)]}{(n + salt + start) % 97}" for n in range(count))
        messages.append(
            {"role": "user" if len(messages) % 2 == 0 else "assistant", "content": f"{salt}.{start} {' '.join(words)}"}
        )
    body = {"model": "auto", "messages": [*messages, {"role": "user", "content": f"And {salt}?"}], "max_tokens": 256}
    return json.dumps(body).encode()


def _roomy(found: Settings) -> Settings:
    """Without a limit of context."""
    wide = {id_: structs.replace(each, context_max=None) for id_, each in found.deployments.items()}
    return replace(found, deployments=wide)


async def by_prompt() -> Points:
    """Cold: never seen; warm: seen before, as the turns of a conversation are.  Stall: how long others had to wait.

    What of it the event loop itself worked is apart: on a busy machine the rest is waiting for a core.
    """
    points: Points = {"cold": [], "warm": [], "longest stall, cold": [], "of which its own CPU": []}
    async with inside(_roomy) as gateway:
        await gateway.cost_us([prompt(1000, 0)], times=50)
        for number, tokens in enumerate((1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)):
            body = prompt(tokens, 1000 + number)
            stall = _Stall()
            began = time.process_time()
            await gateway.ask(body)
            points["cold"].append((tokens, (time.process_time() - began) * 1e6))
            wall_s, cpu_s = stall.longest_s()
            points["longest stall, cold"].append((tokens, wall_s * 1e6))
            points["of which its own CPU"].append((tokens, cpu_s * 1e6))
            points["warm"].append((tokens, await gateway.cost_us([body], times=max(4, 200_000 // tokens))))
    return points


class _Stall:
    """A clock on the event loop that should tick every millisecond."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest, self._last = (0.0, 0.0), self._clocks()
        self._timer = self._loop.call_later(0.001, self._tick)

    def _tick(self) -> None:
        self._look()
        self._timer = self._loop.call_later(0.001, self._tick)

    def _look(self) -> None:
        now = self._clocks()
        wall_s, cpu_s = (after - before for after, before in zip(now, self._last, strict=True))
        self._longest, self._last = (max(self._longest[0], wall_s), max(self._longest[1], cpu_s)), now

    def longest_s(self) -> tuple[float, float]:
        """The longest time between two ticks so far, by the wall and in CPU of this thread; stops the clock."""
        self._timer.cancel()
        self._look()
        return self._longest

    def _clocks(self) -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()


async def by_settings(name: str, counts: tuple[int, ...], change: Callable[[int], Change]) -> Points:
    """The same request under settings that have more and more of one thing."""
    body = requests.long("auto").encode()
    points: Points = {name: []}
    for count in counts:
        async with inside(change(count)) as gateway:
            payers = name in ("tenants", "keys")
            keys = [secret(n * 7919 % count) for n in range(min(count, 2000))] if payers else None
            times = max(40, 20_000 // (50 + count)) if name == "deployments" else 400
            points[name].append((count, await gateway.cost_us([body], *([keys] if keys else []), times=times)))
    return points


async def main() -> None:
    """Measures and draws."""
    found: dict[str, Points] = {"prompt tokens": await by_prompt()}
    for name, counts, change in (
        ("tenants", (1, 10, 100, 1_000, 10_000), lambda n: with_payers(n, n)),
        ("deployments", (1, 5, 20, 50, 200, 500), with_deployments),
        ("budgets per request", (1, 2, 5, 10, 20, 50), with_budgets),
        ("keys", (1, 100, 1_000, 10_000, 100_000), lambda n: with_payers(1, n)),
    ):
        found[name] = await by_settings(name, counts, change)
    for name, points in found.items():
        for series, values in points.items():
            print(f"{name:20}{series:22}", "  ".join(f"{x:,}: {y:,.0f}" for x, y in values))
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "growth.json").write_text(json.dumps(found, indent=1))
    draw(ROOT / "docs" / "growth.png", found)


def draw(path: Path, found: dict[str, Points]) -> None:
    """A plot for each."""
    import matplotlib as mpl  # noqa: PLC0415  # only drawing needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # the same

    figure, axes = plt.subplots(1, len(found), figsize=(3.6 * len(found), 3.4), constrained_layout=True)
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        for series, values in points.items():
            axis.plot(*zip(*values, strict=True), marker="o", markersize=3, label=series)
        axis.set_xscale("log")
        axis.set_title(name, fontsize=10)
        axis.set_ylabel("us")
        if len(points) > 1:
            axis.set_yscale("log")
            axis.axhline(10_000, color="#94a3b8", linewidth=0.8)
            axis.legend(fontsize=7)
        else:
            axis.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    uvloop.run(main())

"""Where the CPU of one request goes, stage by stage.

    python -m bench.stages

In process, ledger in memory.  The profiler says each stage's share; what a request takes without the profiler says how
much that is.
"""

from __future__ import annotations

import cProfile
import pstats

import uvloop

from bench import requests
from bench.inside import inside

STAGES = (
    # what it is, file, function
    ("all of it", "api/chat.py", "__call__"),
    ("key, body, request", "api/ask.py", "request_of"),
    ("count tokens", "tokens/counter.py", "content"),
    ("plan: fit, price, policies", "planner.py", "plan"),
    ("  of which estimates", "tokens/counter.py", "estimate"),
    ("  of which prices of steps", "plan.py", "__post_init__"),
    ("reserve", "pipeline.py", "reserve"),
    ("  of which the ledger in memory", "ledger/memory.py", "reserve"),
    ("encode for the provider", "dialects/openai_chat.py", "encode"),
    ("read the reply", "dialects/relay.py", "finish"),
    ("  of which usage", "usage/__init__.py", "read"),
    ("headers of the reply", "reply_headers.py", "reply_headers"),
    ("learn latency and count", "pipeline.py", "learn"),
    ("settle", "pipeline.py", "settle"),
    ("  of which the record", "exchange.py", "close"),
    ("  of which metrics", "metrics.py", "observe"),
    ("  of which the ledger in memory", "ledger/memory.py", "settle"),
)
TIMES = 2000


async def main() -> None:
    """Prints a Markdown table."""
    body = requests.long("auto").encode()
    async with inside() as gateway:
        plain_us = await gateway.cost_us([body])
        profile = cProfile.Profile()
        profile.enable()
        for _ in range(TIMES):
            await gateway.ask(body)
        profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # missing from its stub
    whole = _spent(stats, *STAGES[0][1:])
    print("| stage | CPU us |\n|---|---|")
    for name, file, function in STAGES:
        print(f"| {name} | {_spent(stats, file, function) / whole * plain_us:.1f} |")


def _spent(stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]], file: str, function: str) -> float:
    return sum(
        found[3] for (path, _, name), found in stats.items() if path.endswith(f"gateway/{file}") and name == function
    )


if __name__ == "__main__":
    uvloop.run(main())

"""How long all policies take together, on prompts nobody has sent before.

    python -m bench.policies

Each prompt has some 2,000 tokens, cut from the project's own documents at another place; the route has four candidates
that the difficulty artifact knows.  A plan goes through every policy that ships, one after another, as in a route that
names them all.  By the wall clock of one process.
"""

from __future__ import annotations

import random
import statistics
import time

from bench.contenders import ROOT
from gateway.plan import Context, Plan, Policy, Stats, Step
from gateway.types import Bucket, Deployment, Estimate, Format, Key, Price, Provider, Request, Tenant
from router_policies.affinity import Affinity
from router_policies.arbitrage import Arbitrage
from router_policies.budget_aware import BudgetAware
from router_policies.cascade import Cascade
from router_policies.cheapest import Cheapest
from router_policies.difficulty import Difficulty
from router_policies.fallback import Fallback
from router_policies.output_cap import OutputCap
from router_policies.reasoning_cap import ReasoningCap
from router_policies.shadow import Shadow
from router_policies.skill import Skill
from router_policies.sticky import Sticky
from router_policies.weighted import Weighted

MODELS = ("qwen2-7b-instruct", "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06", "claude-3-5-sonnet-20241022")
CHARACTERS = 8000
TIMES = 1000


def policies() -> list[Policy]:
    """Every one that ships, those that stand last at the end."""
    cheap, good = MODELS[0], MODELS[-1]
    return [
        Fallback((good, cheap)),
        Weighted({cheap: 90, good: 10}, sticky="user"),
        Sticky("conversation", within=0.3),
        Skill({"law": (good,)}, default=(cheap,)),
        Arbitrage(ttft_ms_max=3000, latency=1.0),
        Affinity(),
        Cheapest(),
        OutputCap(default=512),
        Difficulty(target_quality=0.8, default=good),
        ReasoningCap(default="low"),
        BudgetAware(),
        Shadow(good, share=0.01),
        Cascade(strong=good, agree=2),
    ]


def prompts(count: int) -> list[str]:
    """As many beginnings of as many texts."""
    whole = "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))
    chance = random.Random(7)
    places = [chance.randrange(len(whole) - CHARACTERS) for _ in range(count)]
    return [whole[at : at + CHARACTERS] for at in places]


def plan() -> Plan:
    """Four candidates, each dearer than the one before."""
    provider = Provider("p", "simulated")
    steps = []
    for number, name in enumerate(MODELS):
        price = Price({Bucket.INPUT: 10 ** (8 + number), Bucket.OUTPUT: 4 * 10 ** (8 + number)})
        steps.append(Step(Deployment(name, provider, name, price), Estimate(2000, 2100), 4096, 300, 0.0))
    return Plan(tuple(steps))


def main() -> None:
    """Prints the percentiles."""
    key = Key("k", "t", "bench", b"")
    context = Context(Tenant("t"), time.time(), {name: Stats(300.0, 80.0) for name in MODELS}, fill=0.5)
    asked, before = policies(), plan()
    bodies = [{"model": "auto", "messages": [{"role": "user", "content": text}]} for text in prompts(TIMES + 50)]
    requests = [
        Request(f"r{n}", Format.CHAT, b"", body, "auto", stream=False, received=0.0, key=key)
        for n, body in enumerate(bodies)
    ]
    took: list[float] = []
    for request in requests:
        began = time.perf_counter_ns()
        found = before
        for policy in asked:
            found = policy.apply(found, request, context)
        took.append((time.perf_counter_ns() - began) / 1000)
    cuts = statistics.quantiles(took[50:], n=100, method="inclusive")
    print(f"all {len(asked)} policies: p50 {cuts[49]:.0f} us, p90 {cuts[89]:.0f} us, p99 {cuts[98]:.0f} us")


if __name__ == "__main__":
    main()

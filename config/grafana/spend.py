"""Spend: who, on what, how much is left, what is saved."""

from __future__ import annotations

from promql import (
    CACHED,
    COST,
    HOURLY,
    INPUT,
    LEFT,
    REQUESTS,
    SAVED,
    SPENT,
    TENANT_DEPLOYMENT,
    TOKENS,
    WHO,
    Dashboard,
    Panel,
    grew,
    number,
    or_zero,
    pace,
    ratio,
    share,
)

LOST = "tollgate_prompt_cache_lost_usd_total"
CACHED_IN, ALL_IN = f"{TENANT_DEPLOYMENT}, {CACHED}", f"{TENANT_DEPLOYMENT}, {INPUT}"
_PAIR = "tenant, deployment"
_READ = grew(TOKENS, f'{TENANT_DEPLOYMENT}, kind="cache_read"', by=_PAIR)
_FRESH = grew(TOKENS, f'{TENANT_DEPLOYMENT}, kind="input"', by=_PAIR)
_FRESH_COST = grew(COST, f'{TENANT_DEPLOYMENT}, component="input"', by=_PAIR)
_READ_COST = grew(COST, f'{TENANT_DEPLOYMENT}, component="cache_read"', by=_PAIR)
_WRITE_COST = grew(COST, f'{TENANT_DEPLOYMENT}, component=~"cache_write_.*"')
_WRITTEN_AT_INPUT_PRICE = grew(TOKENS, f'{TENANT_DEPLOYMENT}, kind=~"cache_write_.*"', by=_PAIR)
_RATE = f"({_FRESH_COST} / ({_FRESH} > 0))"
CACHING_SAVED = (
    f"(sum ({_READ} * {_RATE} - {_READ_COST}) or vector(0))"
    f" + (sum ({_WRITTEN_AT_INPUT_PRICE} * {_RATE}) or vector(0)) - {or_zero(_WRITE_COST)}"
)
PROVIDER = " * on (deployment) group_left (provider) max by (deployment, provider) (tollgate_deployment_info)"
OUTPUT = grew(TOKENS, f'{TENANT_DEPLOYMENT}, kind=~"output|reasoning"')
DAYS_LEFT = (
    f'max by (tenant, window) (tollgate_budget_limit_usd{{{WHO}, account="tenant"}}'
    f' - tollgate_budget_spent_usd{{{WHO}, account="tenant"}})'
    f" / on (tenant) group_left () (tenant:tollgate_cost_usd_total:increase1d{{{WHO}}} > 0)"
)

SPEND = Dashboard(
    "Spend",
    "What is spent, by whom and on what; what is left of budgets; what routing and caching save.",
    ("tenant", "deployment"),
    {
        "At a glance": (
            number("Spent", "Settled cost in the time shown.", SPENT, "currencyUSD"),
            number(
                "A day against the mean",
                "The last 24 hours over the mean of the seven days before. 1.5 pages.",
                f"sum (tenant:tollgate_cost_usd_total:increase1d{{{WHO}}})"
                f" / sum (tenant:tollgate_cost_usd_total:daily_mean7d{{{WHO}}})",
                "percentunit",
                1.2,
                1.5,
            ),
            number(
                "Saved against the baseline",
                "What the routes' reference models would have cost for the same tokens, less what was paid, judges and "
                "discarded answers included. A model: the reference might have used other tokens.",
                SAVED,
                "currencyUSD",
            ),
            number("Cost per request", "Of requests that reached a provider.", f"{SPENT} / {REQUESTS}", "currencyUSD"),
            number(
                "Cost per 1,000 output tokens",
                "All cost over all tokens that came out, visible or not.",
                f"1000 * {SPENT} / {OUTPUT}",
                "currencyUSD",
            ),
            number(
                "Reasoning",
                "Share of the cost that went into tokens nobody sees.",
                share(grew(COST, f'{TENANT_DEPLOYMENT}, component="reasoning"'), SPENT),
                "percentunit",
                0.5,
                0.8,
            ),
        ),
        "Where it goes": (
            Panel(
                "By tenant",
                "Dollars an hour.",
                {"{{tenant}}": pace(COST, "tenant", times=HOURLY)},
                "currencyUSD",
                "stacked",
            ),
            Panel(
                "By deployment",
                "Dollars an hour.",
                {"{{deployment}}": pace(COST, "deployment", times=HOURLY)},
                "currencyUSD",
                "stacked",
            ),
            Panel(
                "By provider",
                "Dollars an hour.",
                {"{{provider}}": f"sum by (provider) (({pace(COST, 'deployment', times=HOURLY)}){PROVIDER})"},
                "currencyUSD",
                "stacked",
            ),
            Panel(
                "By component",
                "Dollars an hour for input, cache, output, reasoning, fees; `presumed` was never settled.",
                {"{{component}}": pace(COST, "component", times=HOURLY)},
                "currencyUSD",
                "stacked",
            ),
        ),
        "Budgets": (
            Panel(
                "Left of each budget",
                "Share of the limit that is neither spent nor set aside.",
                {"{{tenant}} {{account}} {{window}}": LEFT % WHO},
                "percentunit",
                "bars",
                (0.2, 0.05),
            ),
            Panel(
                "Days left",
                "At the pace of the last 24 hours, until a tenant's own budget is full; its window may end before.",
                {"{{tenant}} {{window}}": DAYS_LEFT},
                "d",
                "bars",
                (7, 1),
            ),
            Panel(
                "Burn-down",
                "Dollars left of each budget.",
                {
                    "{{tenant}} {{account}} {{window}}": "min by (tenant, account, window)"
                    f" (tollgate_budget_limit_usd{{{WHO}}} - tollgate_budget_spent_usd{{{WHO}}}"
                    f" - tollgate_budget_reserved_usd{{{WHO}}})"
                },
                "currencyUSD",
                width=24,
            ),
        ),
        "Savings": (
            Panel(
                "Cached input",
                "Share of the input read from providers' prompt caches: 80 % is good, "
                "below 30 % something breaks the prefix.",
                {"{{tenant}} {{deployment}}": ratio(_PAIR, (TOKENS, CACHED_IN), (TOKENS, ALL_IN))},
                "percentunit",
            ),
            number(
                "Cached share",
                "Input tokens read from prompt caches, over all input tokens.",
                share(grew(TOKENS, CACHED_IN), grew(TOKENS, ALL_IN)),
                "percentunit",
                0.8,
                0.3,
            ),
            number(
                "Caching saved",
                "Tokens read from and written to prompt caches, at what the deployment charged for other input, less "
                "what they did cost. A model where the price has tiers or hours.",
                CACHING_SAVED,
                "currencyUSD",
            ),
            number(
                "Lost to overhead",
                "Judges, and answers that were thrown away; within the cost.",
                or_zero(grew("tollgate_overhead_cost_usd_total", WHO)),
                "currencyUSD",
            ),
            Panel(
                "What broken caches cost",
                "Dollars in the time shown that reading prompt caches would have saved, by what broke them; an "
                "estimate. `tollgate doctor` says where it stands and what to do.",
                {"{{tenant}} {{route}} {{cause}}": grew(LOST, WHO, by="tenant, route, cause") + " > 0"},
                "currencyUSD",
                "bars",
            ),
            Panel(
                "What breaks caches",
                "Requests a second whose prompt cache was not read as it could have been; an estimate.",
                {"{{cause}}": pace("tollgate_prompt_cache_breaks_total", "cause", WHO)},
                "reqps",
                "stacked",
            ),
            Panel(
                "Paid and baseline",
                "Dollars an hour of requests that have a baseline: the gap is what routing saves.",
                {
                    "baseline": pace("tollgate_baseline_cost_usd_total", "", WHO, HOURLY),
                    "paid": pace("tollgate_compared_cost_usd_total", "", WHO, HOURLY),
                },
                "currencyUSD",
                width=24,
            ),
        ),
    },
)

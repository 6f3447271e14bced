"""One tenant's view."""

from __future__ import annotations

from promql import COST, HOURLY, LEFT, SAVED, SERVED, WHO, Dashboard, Panel, grew, number, or_zero, pace

ONE = 'tenant="$tenant"'

TENANT = Dashboard(
    "Tenant",
    "One tenant: what it spends, what is left, what it uses and how it is served.",
    ("tenant",),
    {
        "At a glance": (
            number("Spent", "Settled cost in the time shown.", grew(COST, ONE), "currencyUSD"),
            number(
                "In the last 24 hours",
                "Settled cost.",
                f"tenant:tollgate_cost_usd_total:increase1d{{{ONE}}}",
                "currencyUSD",
            ),
            number(
                "Fullest budget",
                "Spent and set aside, of the limit.",
                f"max (account:tollgate_budget_spent_usd:ratio{{{ONE}}})",
                "percentunit",
                0.8,
                1,
            ),
            number("Requests", "That reached a provider.", grew("tollgate_requests_total", f"{ONE}, {SERVED}"), "none"),
            number(
                "Refused",
                "Before any provider saw them: budget, limits, bad input.",
                or_zero(grew("tollgate_requests_total", f'{ONE}, outcome="refused"')),
                "none",
            ),
            number("Saved against the baseline", "As on the Spend dashboard.", SAVED.replace(WHO, ONE), "currencyUSD"),
        ),
        "Use": (
            Panel(
                "Spend by deployment",
                "Dollars an hour.",
                {"{{deployment}}": pace(COST, "deployment", ONE, HOURLY)},
                "currencyUSD",
                "stacked",
            ),
            Panel(
                "Tokens by kind",
                "A second, in disjoint kinds.",
                {"{{kind}}": pace("tollgate_tokens_total", "kind", ONE)},
                "none",
                "stacked",
            ),
            Panel(
                "Requests by outcome",
                "A second.",
                {"{{outcome}}": pace("tollgate_requests_total", "outcome", ONE)},
                "reqps",
                "stacked",
            ),
            Panel(
                "Requests by endpoint",
                "A second.",
                {"{{endpoint}}": pace("tollgate_requests_total", "endpoint", ONE)},
                "reqps",
                "stacked",
            ),
            Panel(
                "Left of each budget",
                "Share neither spent nor set aside.",
                {"{{account}} {{window}}": LEFT % ONE},
                "percentunit",
                "bars",
                (0.2, 0.05),
            ),
            Panel(
                "Refused by a budget",
                "In the time shown.",
                {"{{account}} {{window}}": grew("tollgate_budget_denials_total", ONE, by="account, window")},
                "none",
                "bars",
                (1, 10),
            ),
        ),
    },
)

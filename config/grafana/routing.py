"""Routing: what is decided, what deciding costs, how good the estimates are."""

from __future__ import annotations

from promql import ON, ROUTE, SERVED, Dashboard, Panel, grew, number, pace, ratio, share

ESTIMATES = pace("tollgate_token_estimate_ratio_bucket", "le", ON)

ROUTING = Dashboard(
    "Routing",
    "What the routes decide, what it costs to decide, and how good the estimates are.",
    ("route", "deployment"),
    {
        "Decisions": (
            Panel(
                "Who serves",
                "Requests a second of each route, by the deployment that answered.",
                {
                    "{{route}}: {{deployment}}": pace(
                        "tollgate_requests_total", "route, deployment", f"{ROUTE}, {ON}, {SERVED}"
                    )
                },
                "reqps",
                "stacked",
            ),
            Panel(
                "What policies decide",
                "Plans a second by each policy that had a reason, and the deployment it left first. Another mixture "
                "without other settings is other traffic.",
                {"{{policy}}: {{decision}}": pace("tollgate_decisions_total", "policy, decision", ROUTE)},
                "ops",
                "stacked",
            ),
        ),
        "Quality and what it costs": (
            number(
                "Escalated",
                "Share of requests whose first answer was not good enough.",
                share(grew("tollgate_escalations_total", ROUTE), grew("tollgate_requests_total", f"{ROUTE}, {SERVED}")),
                "percentunit",
                0.3,
                0.5,
            ),
            number(
                "Overhead",
                "Judges and discarded answers, as a share of what the requests with a baseline cost.",
                share(grew("tollgate_overhead_cost_usd_total", ROUTE), grew("tollgate_compared_cost_usd_total", ROUTE)),
                "percentunit",
                0.1,
                0.3,
            ),
            number(
                "Agreement with shadows",
                "Of all answers that were compared, 1 is wholly: the mean over routes and kinds.",
                share(
                    grew("tollgate_shadow_agreement_total", f"{ROUTE}, {ON}"),
                    grew("tollgate_shadow_compared_total", f"{ROUTE}, {ON}"),
                ),
                "percentunit",
                0.8,
                0.7,
            ),
            Panel(
                "Escalations",
                "A second, by reason.",
                {"{{route}}: {{reason}}": pace("tollgate_escalations_total", "route, reason", ROUTE)},
                "ops",
            ),
            Panel(
                "Paid over baseline",
                "Below 100 % the route saves; above, it costs more than its reference model alone.",
                {
                    "{{route}}": ratio(
                        "route",
                        ("tollgate_compared_cost_usd_total", ROUTE),
                        ("tollgate_baseline_cost_usd_total", ROUTE),
                    )
                },
                "percentunit",
                limits=(0.9, 1),
            ),
        ),
        "Shadows": (
            Panel(
                "Shadow drift",
                "How much answers agree with those of the route's shadow, 1 is wholly. A fall is drift: a model, a "
                "prompt or the traffic has changed.",
                {
                    "{{route}}: {{deployment}} and {{other}} ({{kind}})": ratio(
                        "route, deployment, other, kind",
                        ("tollgate_shadow_agreement_total", f"{ROUTE}, {ON}"),
                        ("tollgate_shadow_compared_total", f"{ROUTE}, {ON}"),
                    )
                },
                "percentunit",
                limits=(0.8, 0.7),
            ),
            Panel(
                "What became of shadows",
                "Requests drawn, a second. Anything but compared is a comparison that was not made.",
                {"{{route}}: {{result}}": pace("tollgate_shadows_total", "route, result", ROUTE)},
                "ops",
                "stacked",
            ),
        ),
        "Estimates and budgets": (
            Panel(
                "Token estimate over truth",
                "Input tokens estimated before the call / reported after it: 1 is right, below 1 we count too little.",
                {f"{percent} %": f"histogram_quantile({percent / 100}, {ESTIMATES})" for percent in (5, 50, 95)},
                "none",
            ),
            Panel(
                "Made cheaper or refused by a budget",
                "Requests a second.",
                {
                    "degraded {{tenant}} {{account}}": pace("tollgate_budget_degrades_total", "tenant, account", ""),
                    "denied {{tenant}} {{account}}": pace("tollgate_budget_denials_total", "tenant, account", ""),
                },
                "reqps",
            ),
        ),
    },
)

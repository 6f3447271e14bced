"""Reliability: served, how fast, and all of it written down."""

from __future__ import annotations

from promql import FAILED, ON, SERVED, Dashboard, Panel, grew, number, or_zero, pace, ratio, share


def quantile(share: float, metric: str) -> str:
    """Of a histogram, by deployment."""
    return f"histogram_quantile({share}, {pace(f'{metric}_bucket', 'deployment, le', ON)})"


RELIABILITY = Dashboard(
    "Reliability",
    "Whether requests are served, how fast, by whom, and whether everything that happened is written down.",
    ("deployment",),
    {
        "At a glance": (
            number(
                "Failed",
                "Upstream errors, broken streams and gateways that died, of all that was not refused.",
                share(
                    grew("tollgate_requests_total", f"{ON}, {FAILED}"),
                    grew("tollgate_requests_total", f"{ON}, {SERVED}"),
                ),
                "percentunit",
                0.005,
                0.03,
            ),
            number(
                "Circuits open",
                "Deployments to which nothing is sent.",
                f"sum (max by (deployment) (tollgate_circuit_open{{{ON}}}))",
                "none",
                1,
                2,
            ),
            number("In flight", "Calls under way.", f"sum (tollgate_inflight_requests{{{ON}}})", "none"),
            number("Ledger", "1: every gateway's ledger answers.", "min (tollgate_ledger_up)", "none", 1, 0.5),
            number(
                "Records pending", "Not in the database yet.", "sum (tollgate_records_pending)", "none", 1000, 10000
            ),
            number(
                "Records astray",
                "Quarantined, kept in memory for want of disk, or lost.",
                or_zero(grew("tollgate_records_failed_total", "")),
                "none",
                1,
                10,
            ),
        ),
        "Requests": (
            Panel(
                "By outcome",
                "Requests a second; refused: no provider saw them.",
                {"{{outcome}}": pace("tollgate_requests_total", "outcome", "")},
                "reqps",
                "stacked",
            ),
            Panel(
                "Failed by deployment",
                "Share of what was sent there.",
                {
                    "{{deployment}}": ratio(
                        "deployment",
                        ("tollgate_requests_total", f"{ON}, {FAILED}"),
                        ("tollgate_requests_total", f"{ON}, {SERVED}"),
                    )
                },
                "percentunit",
                limits=(0.005, 0.03),
            ),
            Panel(
                "Given up for the next candidate",
                "Failovers a second.",
                {"{{deployment}}: {{reason}}": pace("tollgate_failovers_total", "deployment, reason", ON)},
                "ops",
            ),
            Panel(
                "Asked again",
                "Retries a second on the same deployment.",
                {"{{deployment}}: {{reason}}": pace("tollgate_retries_total", "deployment, reason", ON)},
                "ops",
            ),
        ),
        "Beside the requests": (
            Panel(
                "Provider keys",
                "Calls a second by the name of the key they were made with: `limited` and `denied` keys rest.",
                {
                    "{{provider}} {{key}}: {{outcome}}": pace(
                        "tollgate_provider_key_calls_total", "provider, key, outcome", ""
                    )
                },
                "ops",
                "stacked",
            ),
            Panel(
                "Batches that ended",
                "In the time shown, by how.",
                {
                    "{{tenant}} on {{provider}}: {{state}}": grew(
                        "tollgate_batches_total", "", by="tenant, provider, state"
                    )
                },
                "none",
                "bars",
            ),
            Panel(
                "Alerts",
                "In the time shown: raised once for each thing and window, then told to each webhook.",
                {"{{kind}}: {{outcome}}": grew("tollgate_alerts_total", "", by="kind, outcome")},
                "none",
                "bars",
                (1, 10),
            ),
        ),
        "Time": (
            Panel(
                "Whole request",
                "From arrival to the end of the answer.",
                {
                    "p50 {{deployment}}": quantile(0.5, "tollgate_request_seconds"),
                    "p95 {{deployment}}": quantile(0.95, "tollgate_request_seconds"),
                },
                "s",
            ),
            Panel(
                "First token",
                "From arrival to the first byte of the answer.",
                {
                    "p50 {{deployment}}": quantile(0.5, "tollgate_time_to_first_token_seconds"),
                    "p95 {{deployment}}": quantile(0.95, "tollgate_time_to_first_token_seconds"),
                },
                "s",
            ),
            Panel(
                "Waiting for the provider",
                "Of the whole request.",
                {"p95 {{deployment}}": quantile(0.95, "tollgate_upstream_seconds")},
                "s",
            ),
            Panel(
                "Added by the gateway",
                "What is not waiting for the provider.",
                {
                    "p50 {{deployment}}": quantile(0.5, "tollgate_overhead_seconds"),
                    "p99 {{deployment}}": quantile(0.99, "tollgate_overhead_seconds"),
                },
                "s",
                limits=(0.005, 0.05),
            ),
        ),
        "Whether the figures are whole": (
            Panel(
                "Records written",
                "A second.",
                {"written": "sum (rate(tollgate_records_written_total[$__rate_interval]))"},
                "ops",
            ),
            Panel(
                "Waiting for the database",
                "Records, by gateway.",
                {"{{instance}}": "tollgate_records_pending"},
                "none",
                limits=(1000, 10000),
            ),
            Panel(
                "Estimated and unknown",
                "Answers in the time shown that did not say what they used, or have no known price.",
                {
                    "usage missing {{deployment}}": grew("tollgate_usage_missing_total", ON, by="deployment"),
                    "price unknown {{deployment}}": grew("tollgate_price_unknown_total", ON, by="deployment"),
                },
                "none",
                "bars",
            ),
            Panel(
                "Charged above the bound",
                "Dollars in the time shown.",
                {"{{deployment}}": grew("tollgate_overshoot_usd_total", ON, by="deployment")},
                "currencyUSD",
                "bars",
            ),
        ),
    },
)

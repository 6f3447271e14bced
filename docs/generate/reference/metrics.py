"""Every metric, from the one place where they are declared."""

from __future__ import annotations

from gateway.metrics import COUNTERS, GAUGES, HISTOGRAMS, INFO
from reference.table import code, table


def page() -> str:
    """Names as queries write them, with their labels."""
    counters = [(f"{name}_total", labels, text) for name, (labels, text) in COUNTERS.items()]
    gauges = [(name, labels, text) for name, (labels, text, _) in GAUGES.items()]
    gauges.append((INFO, ("deployment", "provider", "model"), "Always 1: joins deployments with whose they are."))
    histograms = [(name, ("deployment",), text) for name, (_, text) in HISTOGRAMS.items()]
    parts = (("Counters", counters), ("Gauges", gauges), ("Histograms", histograms))
    return "At `/metrics`, for Prometheus. A name or a label changes only with a new major version.\n\n" + "\n\n".join(
        f"## {title}\n\n" + table(("metric", "labels", "what it is"), [_row(*each) for each in rows])
        for title, rows in parts
    )


def _row(name: str, labels: tuple[str, ...], text: str) -> tuple[str, str, str]:
    return code(name), ", ".join(map(code, labels)), text

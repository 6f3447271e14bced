"""What was measured as a table and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COLUMNS = (
    # heading, part, field, digits, whether what the direct way takes is subtracted
    ("requests/s", "throughput: long", "per_s", 0, False),
    ("CPU us", "throughput: long", "cpu_us", 0, False),
    ("short, /s", "throughput: short", "per_s", 0, False),
    ("32 KB tools, /s", "throughput: tools", "per_s", 0, False),
    ("streams/s", "throughput: stream", "per_s", 0, False),
    ("added p50 ms", "alone: long", "p50", 2, True),
    ("p99 ms", "alone: long", "p99", 2, True),
    ("half load p50 ms", "half load: long", "p50", 2, True),
    ("p99 ms", "half load: long", "p99", 2, True),
    ("first token ms", "first token", "first_p50", 2, True),
    ("CPU us/event", "streams: paced", "cpu_us_per_event", 1, False),
    ("with difficulty, /s", "difficulty", "per_s", 0, False),
    ("CPU us, 32 at once", "workers", "cpu_us", 0, False),
    ("MB at rest", "memory", "rest_mb", 0, False),
    ("MB for 1,000 streams", "memory", "added_mb", 0, False),
    ("ready s", "start", "ready_s", 1, False),
)


def best(rows: Iterable[Row], part: str, contender: str, field: str) -> float | None:
    """The better of the rounds: what disturbs a measurement only ever makes it worse."""
    values = [
        row[field]
        for row in rows
        if row["part"] == part and row["contender"] == contender and field in row and row.get("requests", 1)
    ]
    return (max if field == "per_s" else min)(values) if values else None


def table(rows: list[Row]) -> str:
    """Markdown: contenders down, measures across."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    lines = ["| | " + " | ".join(heading for heading, *_ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in names:
        cells = []
        for _, part, field, digits, less in COLUMNS:
            value = best(rows, part, name, field)
            floor = best(rows, part, "direct", field) if less else 0.0
            shown = value is not None and floor is not None and (name != "direct" or not field.startswith("cpu"))
            cells.append(f"{value - floor:,.{digits}f}" if shown and value is not None and floor is not None else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(folder: Path, rows: list[Row], missing: dict[str, str], facts: dict[str, Any]) -> None:
    """`benchmark.json`, `benchmark.md`, `benchmark.png`."""
    folder.mkdir(exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps({"facts": facts, "missing": missing, "rows": rows}, indent=1))
    left_out = [f"- {name}: {why.splitlines()[0][:200]}" for name, why in missing.items()]
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    failures = [f"- {row['part']}, {row['contender']}: {row['failed']} failed, {row['first_failure'][:120]}"
                for row in rows if row.get("failed")]  # fmt: skip
    parts = ["# Side by side", f"Made by `make bench`. One core measured; {said}. Better of the rounds.", table(rows)]
    parts += ["Left out:\n" + "\n".join(left_out)] if left_out else []
    parts += ["Failures:\n" + "\n".join(failures)] if failures else []
    text = "\n\n".join(parts)
    (folder / "benchmark.md").write_text(text + "\n")
    print(text)
    _plot(folder / "benchmark.png", rows)


def _plot(path: Path, rows: list[Row]) -> None:
    import matplotlib as mpl  # noqa: PLC0415  # only drawing needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # the same

    names = [name for name in dict.fromkeys(row["contender"] for row in rows) if name != "direct"]
    shown = (("requests/s, 6.5 KB", "throughput: long", "per_s"), ("added ms, one client", "alone: long", "p50"),
             ("CPU us per stream event", "streams: paced", "cpu_us_per_event"))  # fmt: skip
    figure, axes = plt.subplots(1, len(shown), figsize=(13, 3.6), constrained_layout=True)
    for axis, (heading, part, field) in zip(axes, shown, strict=True):
        floor = best(rows, part, "direct", field) or 0.0 if field == "p50" else 0.0
        known = {name: value - floor for name in names if (value := best(rows, part, name, field)) is not None}
        values = [max(0.0, value) for value in known.values()]
        colors = ["#2563eb" if "tollgate" in name else "#94a3b8" for name in known]
        bars = axis.barh(list(known), values, color=colors)
        axis.bar_label(bars, fmt=lambda value: f"{value:,.0f}" if value >= 10 else f"{value:.2f}", padding=3)
        axis.set_title(heading, fontsize=10)
        axis.invert_yaxis()
        axis.set_xscale(
            "log" if max(values, default=0) > 50 * max(1e-9, statistics.median(values or [1])) else "linear"
        )
        axis.margins(x=0.25)
    figure.savefig(path, dpi=110)

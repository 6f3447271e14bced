"""The figures of one file as a table, a picture and a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

ORDER = (
    "router",
    "router, unchecked",
    "task lookup",
    "artifact's task table",
    "prompt length",
    "zero-router hull",
    "random",
    "shuffled",
    "oracle",
)
COLOURS = {"router": "#0b6e4f", "oracle": "#999999", "zero-router hull": "#c1440e", "random": "#e0a458"}


def rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One line for each router: APGR with its interval, CPT 50/80/95, AIQ, quality and cost kept at 95/99/100 %."""
    gains = figures["pair"]["routers"]
    costs = (figures["cost"] or {"routers": {}})["routers"]
    for name in ORDER:
        if name not in gains and name not in costs:
            continue
        gain, cost = gains.get(name), costs.get(name)
        kept = cost["kept"].values() if cost else ()
        yield (
            name,
            _interval(gain["apgr"]) if gain else "",
            " / ".join(f"{share:.0%}" for share in gain["cpt"].values()) if gain else "",
            f"{cost['aiq']:.3f}" if cost else "",
            *(f"{each['quality_share']['value']:.1%} for {each['cost_share']['value']:.0%}" for each in kept),
        )


COLUMNS = ("", "APGR (95 % interval)", "CPT 50/80/95 %", "AIQ", "aim 95 %", "aim 99 %", "aim 100 %")
RIGHT = COLUMNS[1:]


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def heading(name: str, figures: Mapping[str, Any]) -> str:
    """What was evaluated, in one line."""
    pair = figures["pair"]
    sample = ", TRAINED ON THESE QUERIES" if figures["in_sample"] else ""
    return (
        f"{name}: {figures['queries']} queries, {len(figures['models'])} models{sample}; {pair['weak']} "
        f"({pair['weak_quality']:.1%}) against {pair['strong']} ({pair['strong_quality']:.1%}); abstained "
        f"{figures['abstained']:.0%}, calibration error {figures['calibration_error']:.3f}"
    )


def agreement(figures: Mapping[str, Any]) -> list[str]:
    """The agreement cascades, a line each; none without answers."""
    lines = []
    for name, found in (figures["agreement"] or {}).items():
        if found is None:
            continue
        chosen = found["chosen"]
        lines.append(
            f"agreement cascade, {name} (most often {_asked_first(chosen)}, else {chosen['strong']}): "
            f"{_interval(found['quality_share'])} of the best single model's quality for "
            f"{_interval(found['cost_share'])} of its cost; {found['ended_cheap']:.0%} ended cheap"
        )
    return lines


def _asked_first(chosen: Mapping[str, str]) -> str:
    first, second = chosen["first"], chosen["second"]
    return first if first == second else f"{first} and {second}"


def picture(name: str, figures: Mapping[str, Any]) -> bytes:
    """The curves as a PNG: gap recovered over share sent, and quality over cost."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only a picture needs it

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=COLOURS["random"], linestyle="--", label="random")
    for label, curve in figures["pair"]["curves"].items():
        if label != "oracle":
            share = [i / (len(curve) - 1) for i in range(len(curve))]
            left.plot(share, curve, color=COLOURS.get(label), linewidth=2.2 if label == "router" else 1.2, label=label)
    left.set(xlabel="share of queries to the strong model", ylabel="gap recovered", title=name)
    for label, curve in (figures["cost"] or {"curves": {}})["curves"].items():
        style = "--" if label in ("random", "oracle") else "-"
        right.plot(curve["cost_usd"], curve["quality"], style, marker=".", color=COLOURS.get(label), label=label)
    right.set(xlabel="dollars a query (held-out half)", ylabel="quality", title="quality over cost", xscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def page(name: str, figures: Mapping[str, Any], png: bytes) -> str:
    """One HTML page that needs nothing else."""
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows(figures))
    image = base64.b64encode(png).decode()
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{escape(name)}: what the router is worth</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:right}}
td:first-child,th:first-child{{text-align:left}}img{{max-width:100%}}</style>
<h1>{escape(name)}</h1><p>{escape(heading(name, figures))}</p><p>{escape("; ".join(agreement(figures)))}</p>
<img alt="Quality against cost" src="data:image/png;base64,{image}">
<table><tr>{head}</tr>
{body}</table>
<p>Thresholds are fixed on one half of the queries and tested on the other. "98.0% for 55%" is 98 % of the best single
model's quality for 55 % of its cost.</p></html>
"""


def write(name: str, figures: Mapping[str, Any], directory: Path) -> tuple[Path, Path]:
    """The picture and the page as files; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    png = picture(name, figures)
    files = directory / f"{name}.png", directory / f"{name}.html"
    files[0].write_bytes(png)
    files[1].write_text(page(name, figures, png))
    return files

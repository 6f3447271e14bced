"""Makes the dashboards: `python config/grafana/generate.py` writes the JSON beside this file.

A dashboard is rows of panels; a panel is a question, the queries that answer it, a unit and a description.  Change them
here and never in the JSON: a test makes it anew and compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import bargauge, common, dashboard as grafana, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes, dashboard as models
from promql import Dashboard, Panel
from reliability import RELIABILITY
from routing import ROUTING
from spend import SPEND
from tenant import TENANT

DASHBOARDS = (SPEND, ROUTING, RELIABILITY, TENANT)
FOLDER = Path(__file__).parent
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHTS = {"number": 4, "lines": 8, "stacked": 8, "bars": 8}
SEVERITY = ("green", "orange", "red")


def built(question: Dashboard) -> str:
    """A dashboard as Grafana imports it."""
    found = (
        grafana.Dashboard(f"Tollgate / {question.title}")
        .uid(f"tollgate-{question.title.lower()}")
        .description(question.says)
        .tags(["tollgate"])
        .time("now-24h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(grafana.DashboardLink("Tollgate").tags(["tollgate"]).as_dropdown(True).include_vars(True).keep_time(True))
        .with_variable(grafana.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for name in question.variables:
        found = found.with_variable(variable(name, several=question.title != "Tenant"))
    for row, panels in question.rows.items():
        found = found.with_row(grafana.Row(row))
        for panel in panels:
            found = found.with_panel(drawn(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(found.build()) + "\n"


def variable(name: str, *, several: bool) -> grafana.QueryVariable:
    """The values of a label, as the requests have them."""
    made = (
        grafana.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(f"label_values(tollgate_requests_total, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .regex("/.+/")
    )
    return made.multi(True).include_all(True).all_value(".*") if several else made


def drawn(panel: Panel) -> stat.Panel | timeseries.Panel | bargauge.Panel:
    """A panel with its queries."""
    made = _numbers(panel) if panel.kind == "number" else _bars(panel) if panel.kind == "bars" else _lines(panel)
    made = (
        made.title(panel.title)
        .description(panel.says)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(HEIGHTS[panel.kind])
        .no_value("none")
    )
    if panel.limits:
        made = (
            made.thresholds(_limits(panel.limits)).color_scheme(
                grafana.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)
            )
            if panel.kind != "lines"
            else made.thresholds(_limits(panel.limits))
        )
    for index, (legend, expr) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(ord("A") + index))
        made = made.with_target(query.instant() if panel.kind in ("number", "bars") else query.range())
    return made


def _numbers(panel: Panel) -> stat.Panel:
    made = stat.Panel().graph_mode(shapes.BigValueGraphMode.NONE).reduce_options(_last())
    return made.color_mode(shapes.BigValueColorMode.BACKGROUND if panel.limits else shapes.BigValueColorMode.VALUE)


def _bars(panel: Panel) -> bargauge.Panel:
    made = bargauge.Panel().orientation(shapes.VizOrientation.HORIZONTAL).reduce_options(_last())
    return made.min(0).max(1) if panel.unit == "percentunit" else made.min(0)


def _lines(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().min(0).line_width(1).show_points(shapes.VisibilityMode.NEVER)
    if panel.limits:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphTresholdsStyleMode.DASHED))
    if panel.kind == "stacked":
        made = made.fill_opacity(40).stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    return made.legend(
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.TABLE)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["mean", "lastNotNull"])
    )


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _limits(limits: Sequence[float]) -> grafana.ThresholdsConfig:
    """Upward: green, orange, red.  Downward (the first is the larger): red below the last, green above the first."""
    rising = list(limits) == sorted(limits)
    colours = SEVERITY if rising else SEVERITY[::-1]
    steps = [models.Threshold(value=None, color=colours[0])]
    steps += [models.Threshold(value=at, color=colour) for at, colour in zip(sorted(limits), colours[1:], strict=False)]
    return grafana.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def files() -> dict[Path, str]:
    """What each file shall hold."""
    return {FOLDER / f"{question.title.lower()}.json": built(question) for question in DASHBOARDS}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)

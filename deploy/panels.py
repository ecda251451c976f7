"""What a dashboard is made of, and how Grafana takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as dashboard_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

SOURCE: Final = dashboard_models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT: Final = 7


class Query(NamedTuple):
    """One PromQL expression, in which `JOB` stands for the jobs that are chosen, and what its lines are called."""

    template: str
    legend: str = ""

    @property
    def expr(self) -> str:
        """As Prometheus takes it, but for Grafana's variables."""
        return self.template.replace("JOB", 'job=~"$job"')


class Panel(NamedTuple):
    """One picture. `width`: of 24 columns. `per_sensor`: has data only for the ids in `metrics.sensors`."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    draw: Literal["lines", "stat", "heatmap", "table"] = "lines"
    width: int = 8
    per_sensor: bool = False


class Row(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


class Page(NamedTuple):
    """A dashboard."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]


def lines(title: str, description: str, unit: str, *queries: Query, width: int = 8, per_sensor: bool = False) -> Panel:
    """Lines over time."""
    return Panel(title, description, unit, queries, "lines", width, per_sensor)


def number(title: str, description: str, query: Query, *, unit: str = "none", width: int = 3) -> Panel:
    """The value now, large."""
    return Panel(title, description, unit, [query], "stat", width)


def quantiles(metric: str, by: str = "") -> list[Query]:
    """Median and 99 % of a histogram, one line for each value of the label `by`."""
    labels, legend = (f"{by}, ", f" {{{{{by}}}}}") if by else ("", "")
    return [
        Query(f"histogram_quantile({share}, sum by ({labels}le) (rate({metric}_bucket{{JOB}}[5m])))", name + legend)
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    ]


def build(page: Page) -> dashboard_models.Dashboard:
    """The dashboard as Grafana takes it; panel ids count from 1."""
    made = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags(["detector"])
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(dashboard_models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_label_values("job", "Job", "label_values(detector_ready, job)"))
    )
    if any(panel.per_sensor for row in page.rows for panel in row.panels):
        made.with_variable(_label_values("sensor", "Sensor", "label_values(detector_sensor_value, sensor_id)"))
    at = 0
    for row in page.rows:
        at += 1
        made.with_row(dashboard.Row(row.title).id(at))
        for panel in row.panels:
            at += 1
            made.with_panel(_panel(panel).id(at))
    return made.build()


def _label_values(name: str, label: str, query: str) -> Any:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(dashboard_models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
    )


def _panel(panel: Panel) -> Any:
    made: Any = _DRAWN[panel.draw]()
    made.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    made.span(panel.width).height(4 if panel.draw == "stat" else _HEIGHT)
    for at, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + at))
        target.datasource(SOURCE)
        if panel.draw in ("stat", "table"):
            target.instant()
        else:
            target.range()
        if panel.draw == "table":
            target.format(prometheus_models.PromQueryFormat.TABLE)
        if panel.draw == "heatmap":
            target.format(prometheus_models.PromQueryFormat.HEATMAP)
        made.with_target(target)
    return made


def _lines() -> Any:
    return (
        timeseries.Panel()
        .fill_opacity(8)
        .line_width(1)
        .show_points(common_models.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .legend(common.VizLegendOptions().show_legend(True).display_mode(common_models.LegendDisplayMode.LIST))
    )


def _stat() -> Any:
    return stat.Panel().graph_mode(common_models.BigValueGraphMode.NONE).reduce_options(
        common.ReduceDataOptions().calcs(["lastNotNull"])
    )  # fmt: skip


_DRAWN: Final[dict[str, Callable[[], Any]]] = {
    "lines": _lines,
    "stat": _stat,
    "heatmap": heatmap.Panel,
    "table": table.Panel,
}

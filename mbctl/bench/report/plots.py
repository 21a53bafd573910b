"""The plots of a report, as SVG, drawn by matplotlib where that is installed."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mbctl.bench.figures import Figure, Results
from mbctl.bench.systems.registry import NAMES

BARS = ("publish", "publish.each", "end-to-end", "fan-out", "durable", "end-to-end.durable")
LATENCIES = ("latency.ack", "latency.delivery", "latency.open")


class Curve(NamedTuple):
    """What is drawn over an axis: the figures named by ``prefix`` and a number."""

    file: str
    prefix: str
    axis: str
    title: str


CURVES = (
    Curve("sizes.svg", "sizes", "payload in bytes", "Throughput against size"),
    Curve("topics.svg", "topics", "topics", "Throughput against topics"),
    Curve("subscriptions.svg", "subscriptions", "subscribers", "Deliveries against subscribers"),
    Curve("backlog.svg", "backlog", "unread messages beside it", "End to end against backlog"),
    Curve("idle.svg", "connections.idle", "connections", "End to end against idle connections"),
    Curve("busy.svg", "connections.busy", "connections", "Publish against busy connections"),
)

_COLOURS = dict(
    zip(NAMES, ("#d1495b", "#8d96a3", "#2e86ab", "#e9a23b", "#5b8e55", "#7d5ba6"), strict=True)
)
_STYLE = {
    "svg.hashsalt": "mbctl",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}


def draw(results: Results, directory: Path) -> list[tuple[str, str]]:
    """Draw what there is into ``directory``; the files, and what each shows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = import_module("matplotlib.pyplot")
    with matplotlib.rc_context(_STYLE):
        plots = [_draw_bars(pyplot, results), _draw_latencies(pyplot, results)]
        plots += [_draw_curve(pyplot, results, curve) for curve in CURVES]
        drawn = []
        for plot in plots:
            if plot is not None:
                file, what, figure = plot
                # No date in it, so that equal results give equal files.
                figure.savefig(directory / file, metadata={"Date": None})
                pyplot.close(figure)
                drawn.append((file, what))
    return drawn


Plot = tuple[str, str, Any] | None


def _draw_bars(pyplot: Any, results: Results) -> Plot:
    """Each scenario a panel, each system a bar."""
    panels = [(name, _of_all_systems(results, name)) for name in BARS]
    panels = [(name, figures) for name, figures in panels if figures]
    if not panels:
        return None
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(10, 2.4 * rows), squeeze=False, layout="constrained"
    )
    for axis, (_, figures) in zip(axes.flat, panels, strict=False):
        systems = [f.system for f in figures][::-1]
        values = [f.value / 1e6 for f in figures][::-1]
        bars = axis.barh(systems, values, color=[_COLOURS[s] for s in systems])
        axis.bar_label(bars, [_millions(value) for value in values], padding=3)
        axis.set_title(figures[0].title)
        axis.set_xlabel("million messages a second")
        axis.margins(x=0.2)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    return "peers.svg", "Throughput of mbctl and its peers", figure


def _millions(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _draw_latencies(pyplot: Any, results: Results) -> Plot:
    """Percentile curves: to the right the rarer, slower ones."""
    panels = [(name, _of_all_systems(results, name)) for name in LATENCIES]
    panels = [(name, figures) for name, figures in panels if figures]
    if not panels:
        return None
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(10, 3.4), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, (_, figures) in zip(axes.flat, panels, strict=True):
        for one in figures:
            points = [(float(name[1:]), value) for name, value in one.percentiles.items()]
            inner = [(percent, value) for percent, value in points if percent < 100]
            axis.plot(
                [1 / (1 - percent / 100) for percent, _ in inner],
                [value for _, value in inner],
                color=_COLOURS[one.system],
                linewidth=2.2 if one.system == "mbctl" else 1.3,
                label=one.system,
            )
        axis.set_title(figures[0].title)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks([1, 2, 10, 100, 1000, 10000])
        axis.set_xticklabels(["0", "50", "90", "99", "99.9", "99.99"])
        axis.set_xlabel("percentile")
        axis.grid(alpha=0.3)
    axes.flat[0].set_ylabel("µs")
    axes.flat[0].legend(frameon=False)
    return "latency.svg", "Latency by percentile", figure


def _draw_curve(pyplot: Any, results: Results, curve: Curve) -> Plot:
    """What is measured against how much there is of something."""
    lines = [(system, _curve_of(results, curve.prefix, system)) for system in NAMES]
    lines = [(system, points) for system, points in lines if len(points) > 1]
    if not lines:
        return None
    figure, axis = pyplot.subplots(figsize=(6.5, 3.4), layout="constrained")
    for system, points in lines:
        axis.plot(
            [point.x for point in points],
            [point.value for point in points],
            marker="o",
            color=_COLOURS[system],
            linewidth=2.2 if system == "mbctl" else 1.3,
            label=system,
        )
    points = lines[0][1]
    axis.set_xscale("symlog" if points[0].x == 0 else "log")
    axis.set_xticks([point.x for point in points], [f"{point.x:,.0f}" for point in points])
    axis.minorticks_off()
    axis.set_title(curve.title)
    axis.set_xlabel(curve.axis)
    axis.set_ylabel(points[0].unit)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_minor_formatter("")
        axis.legend(frameon=False)
    else:
        axis.set_ylim(bottom=0)
    return curve.file, curve.title, figure


def _curve_of(results: Results, prefix: str, system: str) -> Sequence[Figure]:
    """The points of a curve, which are named by a number after its prefix."""
    points = [
        f
        for f in results.figures
        if f.system == system and f.values and f.x is not None and f.name == f"{prefix}.{f.x:.0f}"
    ]
    return sorted(points, key=lambda f: f.x or 0)


def _of_all_systems(results: Results, name: str) -> list[Figure]:
    found = [results.of(name, system) for system in NAMES]
    return [figure for figure in found if figure is not None]

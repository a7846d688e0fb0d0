"""Pictures of a comparison: score over shots, over trained parameters, and over time."""

from collections.abc import Callable, Sequence
from typing import Any

from shared_peft.picture import new_figure
from vision.comparison.table import Row
from vision.report.figure import GRID, INK, QUIET, colours_of, hide_spines, label_text

MARKERS = "osD^vPX*<>hp"
COLUMNS = 2
LONGEST = 16
MARGIN = 1.6  # ours: room beside the outermost costs, a factor


def learning_curves_picture(rows: Sequence[Row], title: str) -> Any:
    """Draw each method's mean score over the shots, with a bar of one standard deviation over the draws.

    Args:
        rows: of the table.
        title: of the score.
    """
    methods, shots = _methods(rows), sorted({row.shots for row in rows})
    figure = new_figure("compare", 7.6, 4.6)
    axes = figure.subplots()
    for place, (method, look) in enumerate(_looks(methods).items()):
        found = sorted((row for row in rows if row.method == method), key=lambda row: row.shots)
        beside = 1.025 ** (place - (len(methods) - 1) / 2)  # bars of methods stay apart
        axes.errorbar(
            [row.shots * beside for row in found],
            [100 * row.score for row in found],
            [100 * row.score_sd for row in found],
            linewidth=1.7,
            elinewidth=1.1,
            markersize=5,
            **look,
        )
    axes.set_xscale("log")
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.minorticks_off()
    axes.set_xlabel("training images per class", color=QUIET, fontsize=9)
    _finish(figure, axes, title, f"{title} over the shots, mean and standard deviation")
    return figure


def costs_picture(rows: Sequence[Row], title: str, cost: Callable[[Row], float], name: str) -> Any:
    """Draw the score of every method over what it costs, a panel for each number of shots.

    Args:
        rows: of the table.
        title: of the score.
        cost: of a row, above 0.
        name: of the cost, with its unit.
    """
    shots = sorted({row.shots for row in rows})
    columns = min(COLUMNS, len(shots))
    lines = -(-len(shots) // columns)
    figure = new_figure("compare", 4.1 * columns + 1.6, 3.1 * lines + 0.3)
    grid = figure.subplots(lines, columns, squeeze=False)
    looks = _looks(_methods(rows))
    for axes, count in zip(grid.flat, shots, strict=False):
        for row in (row for row in rows if row.shots == count):
            look = {**looks[row.method], "linestyle": "none"}
            axes.errorbar(cost(row), 100 * row.score, 100 * row.score_sd, elinewidth=1.1, markersize=6, **look)
        _scale_costs(axes, [cost(row) for row in rows if row.shots == count])
        axes.set_xlabel(name, color=QUIET, fontsize=9)
        _finish(None, axes, title, f"{count} image{'s' * (count > 1)} per class")
    for axes in grid.flat[len(shots) :]:
        axes.set_axis_off()
    _legend(figure, grid.flat[0])
    return figure


def _scale_costs(axes: Any, costs: Sequence[float]) -> None:
    """Make the axis logarithmic, its ticks plain numbers: tens, and two and five where the costs lie close together."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415  (slow to import)

    axes.set_xscale("log")
    axes.set_xlim(min(costs) / MARGIN, max(costs) * MARGIN)
    steps = (1.0,) if max(costs) > 100 * min(costs) else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


def _looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each method's colour, marker and name, the same in every picture."""
    colours = colours_of(len(methods))
    return {
        method: {
            "color": colours[place],
            "marker": MARKERS[place % len(MARKERS)],
            "label": label_text(method, LONGEST),
        }
        for place, method in enumerate(methods)
    }


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _finish(figure: Any, axes: Any, title: str, heading: str) -> None:
    axes.set_ylabel(f"{title} [%]", color=QUIET, fontsize=9)
    axes.set_title(heading, fontsize=10, color=INK, loc="left")
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    hide_spines(axes)
    if figure is not None:
        _legend(figure, axes)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside right upper", labelcolor=INK)

"""A bundle's numbers as a picture: latency, where the time goes, size and memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.bench.measure import FileBench
from shared_peft.picture import new_figure, write_picture

_TOP = 7
_REST = "#c8c8c8"
_INK = ("#0b5cad", "#7fb2e5")


def draw_bench(rows: Sequence[FileBench], path: Path) -> None:
    """Write a picture with one line a file.

    Args:
        rows: of `deploy.bench.bench`.
        path: PNG, SVG or PDF, by its suffix.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_figure("bench", 13.0, 1.9 + 0.55 * len(rows))
    latency, operators, size = figure.subplots(1, 3, sharey=True, width_ratios=(4, 5, 4))
    several = len({row.bundle for row in rows}) > 1
    latency.set_yticks(range(len(rows)), [f"{row.bundle}: {row.file}" if several else row.file for row in rows])
    latency.set_ylim(len(rows) - 0.5, -0.5)
    _draw_latency(latency, rows)
    _draw_operators(operators, rows)
    _draw_size(size, rows)
    write_picture(path, figure)


def _draw_latency(axes: Any, rows: Sequence[FileBench]) -> None:
    height = 0.36
    for number, colour in zip(range(len(rows[0].latency)), _INK, strict=True):
        found = [row.latency[number] for row in rows]
        places = [place + (number - 0.5) * height for place in range(len(rows))]
        medians = [each.median_ms for each in found]
        late = [max(0.0, each.p95_ms - each.median_ms) for each in found]
        threads = found[0].threads
        axes.barh(places, medians, height, color=colour, label=f"{threads} thread{'s' * (threads > 1)}")
        axes.errorbar(medians, places, xerr=[[0.0] * len(late), late], fmt="none", ecolor="#555555", elinewidth=1)
        for place, each in zip(places, found, strict=True):
            text = f" {each.median_ms:.3g} ({each.p95_ms:.3g})"
            axes.text(each.median_ms, place - 0.01, text, va="bottom", fontsize=7)
    axes.set_xlim(0, 1.6 * max(each.median_ms for row in rows for each in row.latency))  # a longer line is cut
    axes.set_xlabel("latency of one row [ms]")
    axes.set_title("Median (95th percentile); a long line is cut", fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="best")


def _draw_operators(axes: Any, rows: Sequence[FileBench]) -> None:
    from matplotlib import colormaps  # noqa: PLC0415  (new_figure has said so where it is missing)

    total: dict[str, float] = {}
    for row in rows:
        for name, share in row.operators.items():
            total[name] = total.get(name, 0.0) + share
    top = sorted(total, key=lambda name: -total[name])[:_TOP]
    palette = colormaps["tab10"]
    left = [0.0] * len(rows)
    for number, name in enumerate([*top, "others"]):
        if name == "others":
            shares = [100 * (1 - sum(row.operators.get(each, 0.0) for each in top)) for row in rows]
        else:
            shares = [100 * row.operators.get(name, 0.0) for row in rows]
        colour = _REST if name == "others" else palette(number)
        axes.barh(range(len(rows)), shares, 0.6, left=left, color=colour, label=name)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the time on one thread [%]")
    axes.set_title("Where the time goes, by operator", fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.7 / len(rows)), ncols=4)


def _draw_size(axes: Any, rows: Sequence[FileBench]) -> None:
    sizes = [row.size_mb for row in rows]
    axes.barh(range(len(rows)), sizes, 0.6, color=_INK[0])
    for place, row in enumerate(rows):
        text = f" {row.size_mb:.3g} MB; loads in {row.probe.load_ms:.3g} ms,\n takes {row.probe.model_mib:.3g} MiB"
        axes.text(row.size_mb, place, text, va="center", fontsize=7)
    axes.set_xlim(0, 3 * max(sizes))
    axes.set_xlabel("size [MB]")
    axes.set_title("Size, load time, memory of the model", fontsize=9)

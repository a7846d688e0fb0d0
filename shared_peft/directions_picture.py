"""The directions of a run as a picture: a heat map of change rates, and bars of what the chosen ones carry."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shared_peft.directions_report import DirectionsRow
from shared_peft.picture import new_figure

_COLUMNS = 160  # of the heat map, at most
_ACCENT = "#c2410c"


def draw_directions(method: str, rows: Sequence[DirectionsRow]) -> Any:
    """Draw change rates by weight and direction, the chosen ones marked, beside the part of the change they carry.

    Args:
        method: name of the run's method, for the title.
        rows: see `shared_peft.directions_report.directions_report`.

    Returns:
        The matplotlib figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_figure("tsd", 11, 1.7 + 0.19 * max(len(rows), 5))
    map_axis, bar_axis = figure.subplots(1, 2, sharey=True, width_ratios=(3.4, 1))
    _draw_rates(map_axis, figure, rows)
    map_axis.set_title(f"{method}: change rate of each direction; dots: chosen directions", fontsize=9)
    for shift, colour, label, name in (
        (-0.2, _ACCENT, "chosen directions", "chosen_share"),
        (0.2, "#52606d", "as many with largest sigma", "top_share"),
    ):
        widths = [100 * (getattr(row, name) or 0.0) for row in rows]
        bar_axis.barh([y + shift for y in range(len(rows))], widths, height=0.38, color=colour, label=label)
    bar_axis.set_xlim(0, min(100, max(5, 1.1 * bar_axis.get_xlim()[1])))
    bar_axis.tick_params(labelsize=7, left=False)
    bar_axis.set_xlabel("carried part of ||dW||$^2$ [%]", fontsize=8)
    bar_axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*bar_axis.get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=7, frameon=False)
    return figure


def _draw_rates(axis: Any, figure: Any, rows: Sequence[DirectionsRow]) -> None:
    """Draw the heat map, colours from the 5th percentile of the rates to the largest, and mark what was chosen."""
    columns = min(_COLUMNS, max(len(row.sigma) for row in rows))
    rates = torch.stack([_binned(row, columns) for row in rows])
    lowest = max(float(rates.quantile(0.05)), 1e-4 * float(rates.max()), 1e-12)
    extent = (0, 1, len(rows) - 0.5, -0.5)
    image = axis.imshow(rates.clamp_min(lowest).numpy(), cmap="Blues", norm="log", aspect="auto", extent=extent)
    points = [(x, y) for y, row in enumerate(rows) for x in _places(row)]
    axis.scatter([x for x, _ in points], [y for _, y in points], s=14, c=_ACCENT, lw=0.4, edgecolors="white")
    axis.set_xticks((0, 0.25, 0.5, 0.75, 1), ("largest", "1/4", "1/2", "3/4", "smallest"), fontsize=8)
    axis.set_xlabel("direction, by falling singular value of the frozen weight", fontsize=8)
    axis.set_yticks(range(len(rows)), [row.layer for row in rows], fontsize=7)
    bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.5, pad=0.01, aspect=50)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("change rate", fontsize=8)


def _binned(row: DirectionsRow, columns: int) -> Tensor:
    """Return the largest change rate in each of ``columns`` equal parts of the spectrum, shape (columns,)."""
    order = torch.tensor(row.sigma).argsort(descending=True, stable=True)
    rates = torch.tensor(row.change_rates)[order]
    return functional.adaptive_max_pool1d(rates[None], columns)[0]


def _places(row: DirectionsRow) -> list[float]:
    """Return where in the spectrum, from 0 (largest singular value) to 1, the chosen directions lie."""
    order = torch.tensor(row.sigma).argsort(descending=True, stable=True).argsort()
    return [(int(order[index]) + 0.5) / len(order) for index in row.chosen]

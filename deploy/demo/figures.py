"""The demo's pictures, drawn with matplotlib and kept as SVG so that the page needs no other file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INK, _ACCENT, _SOFT, _SHADE = "#1f2933", "#c2410c", "#9aa5b1", "#fde8d7"


@dataclass(frozen=True)
class Picture:
    """A picture with its title and a sentence on how to read it."""

    title: str
    svg: str
    note: str

    def as_html(self) -> str:
        """Return the picture as a figure; its title is also the text for who cannot see it."""
        source = base64.b64encode(self.svg.encode()).decode()
        image = f"<img alt='{escape(self.title)}' src='data:image/svg+xml;base64,{source}'>"
        note = f"<figcaption>{escape(self.note)}</figcaption>"
        return f"<section><h3>{escape(self.title)}</h3><figure>{image}{note}</figure></section>"


def masked_window(
    times_s: NDArray[Any],
    truth: NDArray[Any],
    rebuilt: NDArray[Any],
    masks: Mapping[str, NDArray[np.bool_]],
    channels: Sequence[str],
) -> Picture:
    """Draw what each masking level hides of one window and how the network rebuilds it.

    Args:
        times_s: time of each sample [s], shape (samples,).
        truth: the window, shape (samples, channels).
        rebuilt: one reconstruction for each level, shape (levels, samples, channels).
        masks: what each level hides, shape (samples, channels), by level.
        channels: names of the channels drawn, the first ones of the window.
    """
    figure, axes = _axes(len(masks), len(channels), width=3.2, height=1.5, sharex=True)
    for row, (level, mask) in enumerate(masks.items()):
        for column, channel in enumerate(channels):
            axis = axes[row][column]
            hidden = mask[:, column]
            axis.fill_between(times_s, 0, 1, where=hidden, transform=axis.get_xaxis_transform(), color=_SHADE, lw=0)
            axis.plot(times_s, truth[:, column], color=_INK, lw=1.0, label="measured")
            guess = np.where(hidden, rebuilt[row][:, column], np.nan)
            axis.plot(times_s, guess, color=_ACCENT, lw=1.4, label="rebuilt")
            axis.set_title(channel if row == 0 else "", fontsize=8)
            if column == 0:
                axis.set_ylabel(level, fontsize=8)
            if row == len(masks) - 1:
                axis.set_xlabel("time [s]", fontsize=8)
    lines = axes[0][0].get_legend_handles_labels()
    figure.legend(*lines, fontsize=8, frameon=False, loc="outside upper right", ncols=2)
    note = "Shaded samples were hidden from the network; the orange line is what it put there. One row a masking level."
    return Picture("A masked window, rebuilt", _as_svg(figure), note)


def search_trace(scores: Sequence[float], weights: Sequence[Mapping[str, float]], chosen: int) -> Picture:
    """Draw the score of every trial and the loss weights it tried.

    Args:
        scores: validation macro-F1 of each trial, in order.
        weights: loss weight by masking level of each trial.
        chosen: number of the winning trial.
    """
    figure, ((upper,), (lower,)) = _axes(2, 1, width=6.4, height=1.9, sharex=True)
    trials = np.arange(1, len(scores) + 1)
    upper.plot(trials, np.maximum.accumulate(scores), color=_SOFT, lw=1.2, label="best so far", drawstyle="steps-post")
    upper.plot(trials, scores, "o", color=_INK, ms=4, label="trial")
    upper.plot(trials[chosen], scores[chosen], "o", color=_ACCENT, ms=7, label="chosen")
    upper.set_ylabel("macro-F1", fontsize=8)
    upper.legend(fontsize=7, frameon=False, ncols=3, loc="lower right")
    bottom = np.zeros(len(scores))
    for level, colour in zip(weights[0], ("#1f2933", "#52606d", "#9aa5b1", "#c2410c"), strict=False):
        heights = np.asarray([trial[level] for trial in weights])
        lower.bar(trials, heights, bottom=bottom, color=colour, width=0.7, label=level)
        bottom += heights
    lower.set_ylabel("loss weights", fontsize=8)
    lower.set_xlabel("trial", fontsize=8)
    lower.set_xticks(trials)
    lower.legend(fontsize=7, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.22))
    note = "Above, the score each trial led to on people kept for validation; below it, the four loss weights tried."
    return Picture("Search for the loss weights", _as_svg(figure), note)


def confusion_matrices(title: str, matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Picture:
    """Draw confusion matrices side by side; each row is a true class and sums to 100 %.

    Args:
        title: of the picture.
        matrices: counts by title, rows are true classes.
        classes: class names.
    """
    side, columns = 1.6 + 0.3 * len(classes), min(2, len(matrices))
    figure, grid = _axes(-(-len(matrices) // columns), columns, width=side, height=side)
    axes = list(grid.flat)
    for unused in axes[len(matrices) :]:
        unused.set_axis_off()
    for number, (axis, (name, counts)) in enumerate(zip(axes, matrices.items(), strict=False)):
        shares = np.asarray(counts, dtype=float)
        shares = 100 * shares / np.maximum(shares.sum(1, keepdims=True), 1)
        axis.imshow(shares, cmap="Oranges", vmin=0, vmax=100)
        for row, column in np.ndindex(*shares.shape):
            colour = "white" if shares[row, column] > 60 else _INK
            axis.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=7)
        axis.set_yticks(range(len(classes)), classes, fontsize=7)
        axis.set_title(name, fontsize=8)
        axis.set_ylabel("true class" if number % columns == 0 else "", fontsize=8)
    return Picture(title, _as_svg(figure), "Per cent of each true class (row) given each answer (column).")


def _axes(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415  (needed only where something is drawn)

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.tick_params(labelsize=7, colors=_INK)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _as_svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()

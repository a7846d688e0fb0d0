"""A picture of a search: the trace of scores, the weights of every trial, and what the surrogate believes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.search.engine import SearchResult
from imu_saga.search.ledger import Trial
from imu_saga.search.surrogate import Surrogate
from imu_saga.search.verdict import INTERVAL_Z
from shared_peft.picture import new_figure, write_picture

PICTURE = "search.png"
POINTS = 61
PALETTE = "tab10"


def draw_search(result: SearchResult, folder: Path) -> Path:
    """Write search.png.

    Args:
        result: of `search`.
        folder: where to write.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    levels = list(result.trials[0]["weights"])
    figure = new_figure("search", 2.4 * max(4, len(levels)), 8.6)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.8, 1.0))
    trace, weights = upper.subplots(2, 1, sharex=True)
    _trace(trace, result)
    _weights(weights, result.trials, levels)
    _beliefs(lower, result, levels)
    write_picture(folder / PICTURE, figure)
    return folder / PICTURE


def _trace(axes: Any, result: SearchResult) -> None:
    """Draw each trial's score, what is believed of it, and the best belief when it ended, with the noise band."""
    trials, numbers = result.trials, np.arange(len(result.trials))
    believed = np.array([trial["belief"] for trial in trials])
    deviation = np.array([trial["belief_deviation"] for trial in trials])
    best, noise = np.maximum.accumulate(believed), result.surrogate.noise
    axes.fill_between(
        numbers, best - noise, best + noise, step="post", color="0.88", linewidth=0, label="noise between seeds (1 sd)"
    )
    axes.step(numbers, best, where="post", color="0.35", linewidth=1.2, label="best belief so far")
    axes.errorbar(
        numbers, believed, deviation, fmt="none", ecolor="tab:blue", elinewidth=1.2, capsize=2, label="belief (1 sd)"
    )
    fractions = list(dict.fromkeys(trial["fraction"] for trial in trials))
    for fraction, marker in zip(fractions, "o^sD", strict=False):
        at = [place for place, trial in enumerate(trials) if trial["fraction"] == fraction]
        named = f"score at {fraction:g} of the steps"
        axes.plot(at, [trials[p]["score"] for p in at], marker, color="tab:orange", markersize=5, label=named)
    first = int(believed.argmax())
    axes.plot(first, believed[first], "*", color="tab:red", markersize=13, label="believed best")
    axes.set_ylabel("macro-F1")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title(str(result.gain), fontsize=10, loc="left")


def _weights(axes: Any, trials: Sequence[Trial], levels: Sequence[str]) -> None:
    """Draw each trial's weights as a stack."""
    numbers, below = np.arange(len(trials)), np.zeros(len(trials))
    for level, colour in zip(levels, _colours(len(levels)), strict=True):
        values = np.array([trial["weights"][level] for trial in trials])
        axes.bar(numbers, values, 0.8, below, color=colour, label=level)
        below += values
    axes.set_ylabel("weights")
    axes.set_xlabel("trial")
    axes.set_xticks(numbers, [str(trial["number"]) for trial in trials], fontsize=8)
    axes.set_xlim(-0.6, len(trials) - 0.4)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _beliefs(row: Any, result: SearchResult, levels: Sequence[str]) -> None:
    """Draw the belief as one level's weight goes from 0 to 1 and the others share the rest evenly."""
    panels = row.subplots(1, len(levels), sharey=True)
    best, height = result.believed_best, max(trial["belief"] for trial in result.trials)
    for axes, level, colour in zip(np.atleast_1d(panels), levels, _colours(len(levels)), strict=True):
        share, mean, deviation = belief_along(result.surrogate, levels, level)
        reach = INTERVAL_Z * deviation
        axes.fill_between(share, mean - reach, mean + reach, color=colour, alpha=0.2, linewidth=0)
        axes.plot(share, mean, color=colour)
        axes.axvline(1 / len(levels), color="0.4", linewidth=0.8, linestyle=":")
        axes.plot(best[level], height, "*", color="tab:red", markersize=10)
        axes.set_xlabel(f"weight of {level}", fontsize=9)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(visible=True, axis="y", alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("believed macro-F1")
    text = "Belief, mean and 95 %, the other levels sharing the rest evenly; dotted: equal weights; star: believed best"
    row.suptitle(text, fontsize=10, x=0.01, ha="left")


def belief_along(surrogate: Surrogate, levels: Sequence[str], level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shares of ``level`` in [0, 1], and mean and deviation of the belief there, each of shape (POINTS,)."""
    share = np.linspace(0, 1, POINTS)
    others = (1 - share) / max(1, len(levels) - 1)
    weights = np.stack([share if name == level else others for name in levels], axis=1)
    return share, *surrogate.predict(weights)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps  # noqa: PLC0415  (new_figure has said so where it is missing)

    return [colormaps[PALETTE](place % colormaps[PALETTE].N) for place in range(count)]

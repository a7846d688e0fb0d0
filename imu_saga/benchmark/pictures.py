"""Pictures of a benchmark: learning curves, F1 by class, confusion matrices, and the spread over people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.benchmark.table import classes_of, mean_and_deviation, of_cells, rows_of, shots_of
from shared_peft.picture import new_figure, write_picture

Record = dict[str, Any]
WHERE = "benchmark"
DARK = 0.55  # of the darkest colour: beyond it text is white


def draw_benchmark(records: Sequence[Record], folder: Path) -> tuple[Path, ...]:
    """Write curves.png, classes.png, confusion.png and subjects.png; the last three at the most labels.

    Args:
        records: of `run_benchmark`.
        folder: where to write.

    Returns:
        The files.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    most = shots_of(records)[-1]
    made = {
        "curves.png": learning_curves(records),
        "classes.png": class_scores(records, most),
        "confusion.png": confusion_matrices(records, most),
        "subjects.png": subject_spread(records, most),
    }
    for name, figure in made.items():
        write_picture(folder / name, figure)
    return tuple(folder / name for name in made)


def learning_curves(records: Sequence[Record]) -> Any:
    """Draw the mean macro-F1 over labels per class, on a logarithmic axis, with a band of one deviation."""
    figure = new_figure(WHERE, 9.0, 5.0)
    axes = figure.subplots()
    shots = shots_of(records)
    largest = max([count for count in shots if count], default=1)
    places = [count or 2.5 * largest for count in shots]
    for row, colour in zip(rows_of(records), _colours(len(rows_of(records))), strict=True):
        scores = [[record["macro_f1"] for record in of_cells(records, row, count)] for count in shots]
        means, deviations = (np.asarray(values) for values in zip(*map(mean_and_deviation, scores), strict=True))
        axes.plot(places, means, marker="o", markersize=4, color=colour, label=row)
        axes.fill_between(places, means - deviations, means + deviations, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(places, [str(count) if count else "all" for count in shots])
    axes.minorticks_off()
    axes.set_xlabel("labelled windows per class")
    axes.set_ylabel("macro-F1 on held-out windows")
    axes.set_ylim(0, 1)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(frameon=False, loc="outside right upper")
    axes.set_title(f"Mean and one standard deviation over {_cells_text(records)}", fontsize=10)
    return figure


def class_scores(records: Sequence[Record], shots: int) -> Any:
    """Draw each row's mean F1 of every class as a table of colours."""
    names, rows = classes_of(records), rows_of(records)
    means = np.full((len(rows), len(names)), np.nan)
    for place, row in enumerate(rows):
        for column, name in enumerate(names):
            found = [
                record["per_class_f1"][record["classes"].index(name)]
                for record in of_cells(records, row, shots)
                if name in record["classes"]
            ]
            means[place, column] = np.mean(found) if found else np.nan
    figure = new_figure(WHERE, 2.6 + 0.75 * len(names), 1.6 + 0.42 * len(rows))
    axes = figure.subplots()
    _coloured_table(axes, means, rows, names, "{:.2f}")
    axes.set_title(f"F1 by class, {_labels_text(shots)}", fontsize=10)
    return figure


def confusion_matrices(records: Sequence[Record], shots: int) -> Any:
    """Draw each row's confusion matrix, all folds and seeds added up, in shares of the true class."""
    names, rows = classes_of(records), rows_of(records)
    columns = int(np.ceil(np.sqrt(len(rows))))
    lines = -(-len(rows) // columns)
    side = 1.7 + 0.42 * len(names)
    figure = new_figure(WHERE, side * columns, side * lines + 0.3)
    grid = figure.subplots(lines, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(rows):
            axes.set_axis_off()
            continue
        total = np.zeros((len(names), len(names)))
        for record in of_cells(records, rows[place], shots):
            at = [names.index(name) for name in record["classes"]]
            total[np.ix_(at, at)] += record["confusion"]
        shares = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
        left = place % columns == 0
        below = place + columns >= len(rows)
        _coloured_table(axes, 100 * shares, names if left else (), names if below else (), "{:.0f}", largest=100)
        axes.set_title(rows[place], fontsize=9)
        axes.set_ylabel("true" if left else "", fontsize=8)
        axes.set_xlabel("answered" if below else "", fontsize=8)
    figure.suptitle(f"Confusion in % of the true class, {_labels_text(shots)}", fontsize=10)
    return figure


def subject_spread(records: Sequence[Record], shots: int) -> Any:
    """Draw every person's macro-F1, averaged over the cells they were tested in, as a dot a row."""
    rows = rows_of(records)
    figure = new_figure(WHERE, 8.0, 1.4 + 0.5 * len(rows))
    axes = figure.subplots()
    for place, (row, colour) in enumerate(zip(rows, _colours(len(rows)), strict=True)):
        scores: dict[str, list[float]] = {}
        for record in of_cells(records, row, shots):
            for subject, scored in record["subjects"].items():
                scores.setdefault(subject, []).append(scored["macro_f1"])
        values = np.sort([np.mean(found) for found in scores.values()])
        offsets = 0.5 * (np.arange(len(values)) * 0.618 % 1 - 0.5)  # spread evenly, so that dots stay apart
        axes.scatter(values, place + offsets, s=14, color=colour, alpha=0.7, linewidths=0)
        axes.plot([np.median(values)] * 2, [place - 0.36, place + 0.36], color="black", linewidth=1.5)
        worst = values[0]
        axes.text(1.04, place, f"median {np.median(values):.2f}, worst {worst:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_xlabel("macro-F1 of one person")
    axes.set_title(f"Every held-out person, {_labels_text(shots)}; the bar is the median", fontsize=10)
    return figure


def _coloured_table(
    axes: Any, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], text: str, *, largest: float = 1.0
) -> None:
    """Draw a matrix with its numbers; names are left out where there are none."""
    axes.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=largest, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and float(text.format(value)):  # what rounds to 0 stays blank
            colour = "white" if value > DARK * largest else "black"
            axes.text(column, row, text.format(value), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps  # noqa: PLC0415  (new_figure has said so where it is missing)

    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [palette(place % palette.N) for place in range(count)]


def _labels_text(shots: int) -> str:
    return f"{shots} labelled window{'s' * (shots > 1)} per class" if shots else "all labels"


def _cells_text(records: Sequence[Record]) -> str:
    folds, seeds = ({record[name] for record in records} for name in ("fold", "seed"))
    return f"{len(folds)} fold{'s' * (len(folds) > 1)} x {len(seeds)} draw{'s' * (len(seeds) > 1)} of labels"

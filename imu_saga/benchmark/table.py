"""A benchmark's records as tables: Markdown to read, CSV to compute with, a summary with what is within noise."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from shared_peft.training import Difference

Record = dict[str, Any]
MEASURES = ("macro_f1", "accuracy")


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation (n - 1); the latter is 0 of a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def of_cells(records: Sequence[Record], row: str, shots: int) -> list[Record]:
    """Return the records of a row and a number of shots, over folds and seeds."""
    return [record for record in records if (record["row"], record["shots"]) == (row, shots)]


def rows_of(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the rows in their order."""
    return tuple(dict.fromkeys(record["row"] for record in records))


def shots_of(records: Sequence[Record]) -> tuple[int, ...]:
    """Return the numbers of shots, ascending, 0 (all labels) last."""
    return tuple(sorted({record["shots"] for record in records}, key=lambda count: count or np.inf))


def shots_text(shots: int) -> str:
    """Return "k=10", or "all" for 0."""
    return f"k={shots}" if shots else "all"


def score_table(records: Sequence[Record], measure: str = "macro_f1") -> str:
    """Return mean +- standard deviation over folds and seeds, one line a row, one column a number of shots."""
    shots = shots_of(records)
    lines = ["| row | " + " | ".join(map(shots_text, shots)) + " |", "|---" * (len(shots) + 1) + "|"]
    for row in rows_of(records):
        cells = []
        for count in shots:
            found = [record[measure] for record in of_cells(records, row, count)]
            cells.append("{:.3f} +- {:.3f}".format(*mean_and_deviation(found)) if found else "")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference_text(differences: Sequence[Difference]) -> str:
    """Return one line a number of shots: the row compared with, and how far the others are from it."""
    lines = []
    for shots in dict.fromkeys(each.shots for each in differences):
        here = sorted((each for each in differences if each.shots == shots), key=lambda each: -each.mean)
        lines.append(
            f"- {shots_text(shots)}, beside {here[0].other}: "
            + "; ".join(f"{each.row} {each.verdict}" for each in here)
        )
    return "\n".join(lines)


def classes_of(records: Sequence[Record]) -> tuple[str, ...]:
    """Return every class name of any fold, in the order of first appearance."""
    return tuple(dict.fromkeys(name for record in records for name in record["classes"]))


def csv_text(records: Sequence[Record]) -> str:
    """Return one line a record: row, fold, shots, seed, labels, scores, and the F1 of every class."""
    stream = io.StringIO()
    names = classes_of(records)
    fields = ("row", "fold", "shots", "seed", "labels", *MEASURES, "count")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*fields, *(f"f1_{name}" for name in names)])
    for record in records:
        scores = dict(zip(record["classes"], record["per_class_f1"], strict=True))
        writer.writerow([*(record[name] for name in fields), *(scores.get(name, "") for name in names)])
    return stream.getvalue()


def summary(records: Sequence[Record], differences: Sequence[Difference]) -> dict[str, Any]:
    """Return means and deviations by row and shots, and the differences between rows, as plain JSON values."""
    cells = []
    for row in rows_of(records):
        for shots in shots_of(records):
            found = of_cells(records, row, shots)
            if not found:
                continue
            cell: dict[str, Any] = {"row": row, "shots": shots, "cells": len(found)}
            for measure in MEASURES:
                mean, deviation = mean_and_deviation([record[measure] for record in found])
                cell |= {measure: mean, f"{measure}_sd": deviation}
            cells.append(cell)
    told = [
        {
            "row": each.row, "other": each.other, "shots": each.shots, "macro_f1_difference": each.mean,
            "low": each.low, "high": each.high, "within_noise": each.within_noise,
        }
        for each in differences
    ]  # fmt: skip
    return {"cells": cells, "differences": told}

"""The table of a comparison: means and spread over the draws, as text and as CSV."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared_peft.training import Difference


@dataclass(frozen=True)
class Row:
    """One line of the table: means and standard deviations (n - 1) over the draws of the shots.

    Args:
        method: the row's name.
        shots: training images per class.
        score: what rows are compared by, in [0, 1].
        score_sd: its standard deviation; 0 of one draw.
        macro_f1: mean F1 over the classes, in [0, 1].
        macro_f1_sd: its standard deviation.
        adapter: trained parameters outside the head.
        trainable: trained parameters in all.
        learning_rate: of the adapter, or of the whole model.
        rate_from: how it was chosen.
        seconds: median time of a training [s].
        seconds_per_epoch: median time of a pass over the images [s].
        seeds: number of draws.
    """

    method: str
    shots: int
    score: float
    score_sd: float
    macro_f1: float
    macro_f1_sd: float
    adapter: int
    trainable: int
    learning_rate: float
    rate_from: str
    seconds: float
    seconds_per_epoch: float
    seeds: int


def row_of(cells: Sequence[Mapping[str, Any]], rate_from: str) -> Row:
    """Summarise the trainings of one method at one number of shots."""
    score, macro_f1 = ([cell[name] for cell in cells] for name in ("score", "macro_f1"))
    first = cells[0]
    return Row(
        method=first["method"],
        shots=first["shots"],
        score=statistics.fmean(score),
        score_sd=statistics.stdev(score) if len(cells) > 1 else 0.0,
        macro_f1=statistics.fmean(macro_f1),
        macro_f1_sd=statistics.stdev(macro_f1) if len(cells) > 1 else 0.0,
        adapter=first["body"],
        trainable=first["trainable"],
        learning_rate=first["learning_rate"],
        rate_from=rate_from,
        seconds=statistics.median(cell["seconds"] for cell in cells),
        seconds_per_epoch=statistics.median(cell["seconds_per_epoch"] for cell in cells),
        seeds=len(cells),
    )


def best_of(rows: Sequence[Row], shots: int) -> Row:
    """Return the row with the highest mean score; of equals the one with fewer trained parameters."""
    return max((row for row in rows if row.shots == shots), key=lambda row: (row.score, -row.trainable))


def against_best(row: Row, best: Row, differences: Sequence[Difference]) -> Difference | None:
    """Return the row's difference from the best one of its shots; None for the best one itself."""
    for found in differences:
        if found.shots == row.shots and {found.row, found.other} == {row.method, best.method}:
            turned = Difference(found.other, found.row, found.shots, -found.mean, -found.high, -found.low)
            return found if found.row == row.method else turned
    return None


def verdict(difference: Difference | None) -> str:
    """Return how a row stands to the best one, in words."""
    if difference is None:
        return "best"
    return "within noise" if difference.within_noise else f"{100 * difference.mean:+.1f}"


def format_table(rows: Sequence[Row], differences: Sequence[Difference], title: str) -> str:
    """Return the rows as a text table, scores in percent.

    Args:
        rows: in reading order.
        differences: of the same rows.
        title: of the score.
    """
    head = (
        f"{'shots':>5}  {'method':<12} {title + ' %':>13} {'macro-F1 %':>13} {'adapter':>9} {'trained':>10} "
        f"{'rate':>8} {'s/epoch':>8}  against the best"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        stands = verdict(against_best(row, best_of(rows, row.shots), differences))
        lines.append(
            f"{row.shots:>5}  {row.method:<12} {_spread(row.score, row.score_sd):>13} "
            f"{_spread(row.macro_f1, row.macro_f1_sd):>13} {row.adapter:>9,} {row.trainable:>10,} "
            f"{row.learning_rate:>8.2g} {row.seconds_per_epoch:>8.3f}  {stands}"
        )
    return "\n".join(lines)


def as_csv(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a training."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(cells[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def as_json(values: Sequence[Row] | Sequence[Difference]) -> list[dict[str, Any]]:
    """Return rows or differences as plain JSON values; a difference says whether it is within noise."""
    return [
        {**dataclasses.asdict(value), **({"within_noise": value.within_noise} if isinstance(value, Difference) else {})}
        for value in values
    ]


def _spread(mean: float, deviation: float) -> str:
    return f"{100 * mean:.1f} +- {100 * deviation:.1f}"

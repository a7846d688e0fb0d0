"""A comparison as one page, its pictures inside, and as files beside it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_peft.atomic import replacing, write_text
from shared_peft.training import Difference, RunFolder
from vision.comparison.pace import Pace
from vision.comparison.pictures import costs_picture, learning_curves_picture
from vision.comparison.table import Row, against_best, as_csv, as_json, best_of, format_table, verdict
from vision.report.figure import png_of
from vision.report.page import (
    Picture,
    Section,
    Tile,
    bar_cell,
    bullets,
    folded,
    number,
    page,
    percent,
    plain_cell,
    table,
)

PAGE, TABLE = "results.html", "table.txt"
PROTOCOL = (
    "Every row starts from the same weights and is trained and tested on the same images. Adapters have at most the "
    "same number of parameters; the classifier, which all rows train, is not counted. Learning rates are chosen by "
    "cross-validation inside a separate draw of training images; no test image is looked at for it."
)
NOISE = (
    "The 95 % interval of a paired difference holds 0: another draw of the training images, or other test images, "
    "could turn it round. Both sources are counted. Pairs are judged one by one; of many, some look real by chance."
)


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Args:
        title: of the score that rows are compared by.
        budget: largest number of adapter parameters.
        rows: one for each number of shots and method.
        differences: of every two rows of the same shots.
        cells: results of the single trainings.
        paces: of rows that a rival stands beside.
    """

    title: str
    budget: int
    rows: list[Row]
    differences: list[Difference]
    cells: list[dict[str, Any]]
    paces: list[Pace]

    @property
    def shots(self) -> list[int]:
        """Training images per class, ascending."""
        return sorted({row.shots for row in self.rows})

    def notes(self) -> list[str]:
        """Return what a reader should know of the rows: rates at the edge or not validated, and paces."""
        doubtful = [row for row in self.rows if "edge" in row.rate_from or "not" in row.rate_from]
        return [
            *(f"{row.method} at {row.shots} shots: learning rate {row.rate_from}" for row in doubtful),
            *(str(pace) for pace in self.paces),
        ]

    def as_text(self) -> str:
        """Return the table with its notes."""
        lines = [format_table(self.rows, self.differences, self.title), *self.notes()]
        return "\n".join([*lines, f"Adapter budget: {self.budget:,} parameters, the classifier not counted."])


def write_comparison(folder: RunFolder, done: Comparison) -> None:
    """Write table.txt, results.csv, results.json, three pictures and, last, results.html."""
    pictures = _pictures(done)
    for picture in pictures:
        with replacing(folder.path / f"{picture.name}.png") as temporary:
            temporary.write_bytes(picture.png)
    write_text(folder.path / TABLE, done.as_text() + "\n")
    write_text(folder.path / "results.csv", as_csv(done.cells))
    folder.write(
        "results.json",
        {
            "score": done.title,
            "budget": done.budget,
            "rows": as_json(done.rows),
            "differences": as_json(done.differences),
            "paces": [vars(pace) for pace in done.paces],
            "notes": done.notes(),
        },
    )
    write_text(folder.path / PAGE, _page(folder, done, pictures))


def _pictures(done: Comparison) -> list[Picture]:
    rows, title = done.rows, done.title
    curves = "The bars are one standard deviation over the draws; they are drawn a little apart to be told."
    costs = "One panel for each number of images; further up and further left is better."
    drawn = (
        ("learning_curves", learning_curves_picture(rows, title), f"{title} over training images per class.", curves),
        (
            "parameters",
            costs_picture(rows, title, lambda row: row.trainable, "trained parameters, classifier included"),
            f"{title} over trained parameters.",
            costs,
        ),
        (
            "time",
            costs_picture(rows, title, lambda row: max(row.seconds, 1e-4), "time of a training [s]"),
            f"{title} over the time of a training.",
            costs,
        ),
    )
    return [Picture(name, png_of(figure), alt, caption) for name, figure, alt, caption in drawn]


def _page(folder: RunFolder, done: Comparison, pictures: Sequence[Picture]) -> str:
    asked = folder.describe("vision")
    config = asked["config"]
    data = Path(config["data"]).name or config["data"]
    curves, parameters, time = (picture.as_html() for picture in pictures)
    sections = [
        Section("Scores", PROTOCOL, curves + "".join(_scores(done, shots) for shots in done.shots)),
        Section("What is within noise", NOISE, "".join(_differences(done, shots) for shots in done.shots)),
        Section("What it costs", "Parameters that are trained, and the time that takes.", parameters + time),
        Section("How this was made", "All it takes to make it again.", bullets([*done.notes(), *_facts(asked)])),
    ]
    methods = ", ".join(dict.fromkeys(row.method for row in done.rows))
    return page(f"{config['backbone']} on {data}", f"{methods}, compared.", _tiles(done), sections)


def _tiles(done: Comparison) -> list[Tile]:
    found = []
    for shots in done.shots:
        best = best_of(done.rows, shots)
        equals = [
            row.method
            for row in done.rows
            if row.shots == shots and (gap := against_best(row, best, done.differences)) and gap.within_noise
        ]
        note = f"within noise of it: {', '.join(equals)}" if equals else "every other row is behind by more than noise"
        label = f"Best with {shots} image{'s' * (shots > 1)} per class: {best.method}"
        found.append(Tile(label, best.score, percent(best.score), note))
    return [*found, Tile("Adapter budget", done.budget, f"{done.budget:,}", "parameters, the classifier not counted")]


def _scores(done: Comparison, shots: int) -> str:
    best = best_of(done.rows, shots)
    rows = [
        (
            row.method,
            (
                bar_cell(row.score),
                f"<td>{number(row.score_sd, percent(row.score_sd))}</td>",
                f"<td>{number(row.macro_f1, percent(row.macro_f1))}</td>",
                f"<td>{number(row.adapter, f'{row.adapter:,}')}</td>",
                f"<td>{number(row.trainable, f'{row.trainable:,}')}</td>",
                f"<td>{number(row.learning_rate, f'{row.learning_rate:.2g}')}</td>",
                f"<td>{number(row.seconds_per_epoch, f'{row.seconds_per_epoch:.3f}')}</td>",
                plain_cell(verdict(against_best(row, best, done.differences))),
            ),
        )
        for row in done.rows
        if row.shots == shots
    ]
    headings = (
        *("method", done.title, "deviation", "macro-F1", "adapter", "trained", "learning rate"),
        *("s per epoch", "points against the best"),
    )
    seeds = done.rows[0].seeds
    return table(f"{_images(shots)}, {seeds} draw{'s' * (seeds > 1)}", headings, rows)


def _differences(done: Comparison, shots: int) -> str:
    rows = [
        (
            f"{found.row} against {found.other}",
            (
                *(f"<td>{number(value, f'{100 * value:+.1f}')}</td>" for value in (found.mean, found.low, found.high)),
                plain_cell("within noise" if found.within_noise else "real"),
            ),
        )
        for found in done.differences
        if found.shots == shots
    ]
    if not rows:
        return ""
    listed = table("Points", ("pair", "difference", "lowest", "highest", "told"), rows)
    noisy = sum(found.within_noise for found in done.differences if found.shots == shots)
    return folded(f"{_images(shots)}: {noisy} of {len(rows)} differences are within noise", listed)


def _images(shots: int) -> str:
    return f"{shots} training image{'s' * (shots > 1)} per class"


def _facts(asked: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in asked["versions"].items())
    options = ", ".join(f"{name} {value}" for name, value in asked["config"].items() if value not in (None, [], False))
    return [f"Run: {shlex.join(map(str, asked['command']))}", f"Options: {options}", f"Versions: {versions}"]

"""From a finished run and labelled images to one page that says how good it is, and why."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_peft.atomic import replacing, write_text
from shared_peft.errors import ConfigError, DataError
from shared_peft.picture import new_figure
from shared_peft.progress import Bar
from shared_peft.training import RunFolder
from vision.datasets import open_images
from vision.evaluate import predict_logits
from vision.report.answers import Answers, answers_of
from vision.report.before import model_before
from vision.report.calibration import reliability
from vision.report.explanations import check_explanation
from vision.report.features import Projection
from vision.report.looks import Models, features_part, looks_part
from vision.report.page import Tile, page, percent
from vision.report.sections import (
    Part,
    classes_part,
    confidence_part,
    confusion_part,
    facts_part,
    mistakes_part,
    tiles_of,
    training_part,
)
from vision.report.told import Told, read_origin, read_told
from vision.tasks import task_of
from vision.trained import RunDescription, load_model, read_description
from vision.transforms import load_pixels

PAGE = "report.html"


@dataclass(frozen=True)
class ReportSettings:
    """What a report shows.

    Args:
        explanation: how answers are explained: a registered name, or "auto".
        projection: how features are laid out.
        mistakes: wrong answers shown.
        maps: images explained.
        points: images whose features are drawn.
        seed: of the projection.
    """

    explanation: str = "auto"
    projection: Projection = "tsne"
    mistakes: int = 18
    maps: int = 8
    points: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_explanation(self.explanation)
        for name, least in (("mistakes", 1), ("maps", 1), ("points", 4)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name}", f"must be at least {least}", getattr(self, name), "Raise it")


@dataclass(frozen=True)
class Explained:
    """What a report came to.

    Args:
        page: the HTML file; its pictures lie beside it.
        scores: of the run's task, on the images given.
        skipped: errors of the images left out.
    """

    page: Path
    scores: Any
    skipped: tuple[str, ...]


def explain_run(
    run: Path,
    data: str,
    out: Path,
    settings: ReportSettings = ReportSettings(),  # noqa: B008  (frozen)
    *,
    skip_broken: bool = False,
    progress: bool = False,
) -> Explained:
    """Score a run on the test side of a data set and write the report.

    Args:
        run: a finished run folder.
        data: what `vision.datasets.open_images` takes.
        out: folder to write report.html and its pictures to.
        settings: what to show.
        skip_broken: leave unreadable images out; else the first one is an error.
        progress: show progress bars.

    Returns:
        The page and the scores.

    Raises:
        RunError: no finished vision run.
        DataError: classes the data set does not have, labels of another task, or a broken image.
        MissingPackageError: matplotlib is not installed.
    """
    description = read_description(run)
    new_figure("explain", 1, 1)  # a missing matplotlib is told before the work
    images, label = open_images(data, description.classes).test, "read test images" if progress else None
    if (task := task_of(images.labels)) != description.task:
        raise DataError(data, f"must be {description.task} data, as the run's", task, "Point at data of the run's kind")
    pixels = load_pixels(images, description.data, skip_broken=skip_broken, progress=label)
    before, after = model_before(run, description), load_model(run, description)
    logits = predict_logits(after, pixels.values, description.data)
    answers = answers_of(pixels, description.classes, logits, description.task)
    by_title = {"after training": after} if before is None else {"before": before, "after": after}
    models = Models(by_title, description.data, description.head[0])
    steps = len(by_title) * min(settings.maps, len(pixels.labels))
    with Bar(total=steps, desc="explain", unit="image", dynamic_ncols=True, disable=not progress) as bar:
        looks = looks_part(models, answers, settings.explanation, settings.maps, bar)
    features = features_part(models, answers, settings.projection, settings.points, settings.seed)
    tiles, parts = _parts(run, data, description, answers, settings, (looks, features))
    _write(out, f"{run.name}: {description.method} on {description.spec.name}", _lead(answers, data), tiles, parts)
    return Explained(out / PAGE, answers.scores(), pixels.skipped)


def _parts(
    run: Path,
    data: str,
    description: RunDescription,
    answers: Answers,
    settings: ReportSettings,
    looks: tuple[Part, ...],
) -> tuple[list[Tile], list[Part]]:
    """Return the tiles and the parts of the page, in reading order."""
    folder = RunFolder(run)
    told, scores = read_told(folder), answers.scores()
    honest = reliability(answers.confidence, answers.right)
    parts = [
        mistakes_part(answers, settings.mistakes),
        confusion_part(answers, scores),
        classes_part(answers, scores),
        *looks,
        confidence_part(honest, *(float(of.double().mean()) for of in (answers.confidence, answers.right))),
        training_part(folder.read_log()),
        facts_part(_facts(folder, data, description, told, answers)),
    ]
    return tiles_of(answers, scores, honest, told), [part for part in parts if part is not None]


def _lead(answers: Answers, data: str) -> str:
    right, total = int(answers.image_right.sum()), len(answers.image_right)
    name = Path(data).name or data
    return f"{right:,} of {total:,} test images of {name} are answered rightly. Below: where it fails, and why."


def _facts(folder: RunFolder, data: str, description: RunDescription, told: Told, answers: Answers) -> list[str]:
    """Return what it takes to make the run and the report again."""
    command, versions = read_origin(folder)
    here, there = answers.scores().accuracy, told.accuracy
    beside = "the same as here" if there == here else f"here {percent(here)}: other images than the run was tested on"
    return [
        f"Run: {shlex.join(command)}",
        f"Test images: {data}",
        f"Trained {told.steps:,} steps on {told.train_images:,} images in {told.train_seconds:.1f} s, "
        f"seed {description.seed}",
        *([] if there is None else [f"The run's own results.json: accuracy {percent(there)}, {beside}"]),
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
        *(f"Left out: {reason}" for reason in answers.pixels.skipped),
    ]


def _write(out: Path, title: str, lead: str, tiles: list[Tile], parts: list[Part]) -> None:
    """Write the pictures and, last, the page."""
    for picture in (picture for _, pictures in parts for picture in pictures):
        with replacing(out / f"{picture.name}.png") as temporary:
            temporary.write_bytes(picture.png)
    write_text(out / PAGE, page(title, lead, tiles, [section for section, _ in parts]))

"""The parts of a report, from what was found to words, tables and pictures."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from vision.report.answers import Answers
from vision.report.calibration import Reliability, wilson_interval
from vision.report.figure import png_of
from vision.report.page import Picture, Section, Tile, bar_cell, bullets, folded, percent, plain_cell, table
from vision.report.pictures.confusion import confusion_picture
from vision.report.pictures.learning_curve import curve_names, learning_curve_picture
from vision.report.pictures.mistakes import mistakes_picture
from vision.report.pictures.reliability import reliability_picture
from vision.report.told import Told

CONFUSIONS = 8  # listed beside the matrix
Part = tuple[Section, tuple[Picture, ...]]


def tiles_of(answers: Answers, scores: Any, honest: Reliability, told: Told) -> list[Tile]:
    """Return the numbers to be seen first."""
    low, high = wilson_interval(int(answers.image_right.sum()), scores.count)
    surest = float(answers.confidence.double().mean())
    precision = getattr(scores, "mean_average_precision", None)  # of several labels an image
    ranked = [] if precision is None else [Tile("mAP", precision, percent(precision), "mean average precision")]
    return [
        *ranked,
        Tile("Accuracy", scores.accuracy, percent(scores.accuracy), f"95 % interval {percent(low)} to {percent(high)}"),
        Tile("Macro-F1", scores.macro_f1, percent(scores.macro_f1), f"{len(answers.classes)} classes count alike"),
        Tile("Calibration error", honest.error, percent(honest.error), f"mean confidence {percent(surest)}"),
        Tile(
            "Trained parameters",
            told.trainable,
            f"{told.trainable:,}",
            f"{percent(told.trainable / told.total)} of {told.total:,}",
        ),
    ]


def confusion_part(answers: Answers, scores: Any) -> Part | None:
    """Return the confusion matrix and the pairs of classes confused most; None where an image has several labels."""
    if not hasattr(scores, "confusion"):
        return None
    pairs = [
        (count, true, answered)
        for true, row in enumerate(scores.confusion)
        for answered, count in enumerate(row)
        if count and true != answered
    ]
    names = answers.classes
    most = sorted(pairs, key=lambda pair: -pair[0])[:CONFUSIONS]
    rows = [(names[t], (plain_cell(names[a]), plain_cell(c), plain_cell(sum(scores.confusion[t])))) for c, t, a in most]
    drawn = png_of(confusion_picture(scores.confusion, names))
    told = "; ".join(f"{names[t]} taken for {names[a]} {c} times" for c, t, a in most[:3]) or "no mistake"
    picture = Picture("confusion", drawn, f"Confusion matrix. {told}.", "Each row is a true class and sums to 100 %.")
    listed = table("Confused most", ("true class", "answered", "images", "of"), rows) if rows else ""
    text = "What the model answers for each true class. A perfect model has the diagonal alone."
    return Section("What is taken for what", text, picture.as_html() + listed), (picture,)


def classes_part(answers: Answers, scores: Any) -> Part:
    """Return precision, recall and F1 of every class."""
    right = (answers.predicted & answers.truth).sum(dim=0)
    precision, recall = (right / found.sum(dim=0).clamp_min(1) for found in (answers.predicted, answers.truth))
    rows = [
        (
            name,
            (
                plain_cell(int(answers.truth[:, place].sum())),
                bar_cell(float(precision[place])),
                bar_cell(float(recall[place])),
                bar_cell(scores.per_class_f1[place]),
            ),
        )
        for place, name in enumerate(answers.classes)
    ]
    headings = ("class", "images", "precision", "recall", "F1")
    text = (
        "Precision: how often the class is true where it is answered. Recall: how often it is answered where it is "
        "true. F1 is their harmonic mean."
    )
    return Section("Class by class", text, table("Scores of each class on the test images", headings, rows)), ()


def mistakes_part(answers: Answers, count: int) -> Part:
    """Return the wrong answers the model was surest of, as pictures and as a list of files."""
    mistakes = answers.worst_mistakes(count)
    if not mistakes:
        return Section("The worst mistakes", "Every answer is right."), ()
    wrong, folder = int((~answers.right).sum()), common_folder(answers.pixels.names)
    listed = [
        (
            answers.pixels.names[mistake.row].removeprefix(folder),
            (plain_cell(mistake.true), plain_cell(mistake.answered), bar_cell(mistake.confidence)),
        )
        for mistake in mistakes
    ]
    alt = f"The {len(mistakes)} wrong answers of the highest confidence; the table below lists them."
    picture = Picture("mistakes", png_of(mistakes_picture(answers.pixels.values, mistakes)), alt)
    text = (
        f"{wrong:,} of {len(answers.right):,} answers are wrong. These are the {len(mistakes)} the model was surest "
        "of: look for wrong labels, for images of two classes, and for what the training images lack."
    )
    files = table(f"Below {folder}" if folder else "", ("image", "true", "answered", "confidence"), listed)
    body = picture.as_html() + folded("Which files these are", files)
    return Section("The worst mistakes", text, body), (picture,)


def common_folder(names: Sequence[str]) -> str:
    """Return what all paths begin with, up to a slash; empty where they have no folder in common.

    Example:
        >>> common_folder(["photos/cat/1.png", "photos/cow/2.png"])
        'photos/'
    """
    shared = os.path.commonprefix(list(names))
    return shared[: shared.rfind("/") + 1]


def confidence_part(found: Reliability, confidence: float, accuracy: float) -> Part:
    """Return the reliability diagram."""
    leaning = "too sure of itself" if confidence > accuracy else "less sure than it could be"
    alt = (
        f"Reliability diagram: accuracy against confidence in {len(found.counts)} bins. "
        f"Mean confidence {percent(confidence)}, accuracy {percent(accuracy)}."
    )
    caption = "Above, the accuracy of the answers in each bin of confidence; below, how many answers lie in it."
    picture = Picture("reliability", png_of(reliability_picture(found)), alt, caption)
    text = (
        f"Mean confidence is {percent(confidence)} at an accuracy of {percent(accuracy)}: on the whole the model is "
        f"{leaning}. The expected calibration error, {percent(found.error)}, is the mean gap between the two."
    )
    return Section("Can its confidence be trusted", text, picture.as_html()), (picture,)


def training_part(metrics: Sequence[Mapping[str, Any]]) -> Part | None:
    """Return the learning curve; None where the run kept no metrics."""
    names = curve_names(metrics)
    if not names:
        return None
    alt = f"Learning curves over {metrics[-1]['step']} steps: {', '.join(names)}."
    picture = Picture("learning_curve", png_of(learning_curve_picture(metrics)), alt)
    return Section("How it was trained", "What the run wrote down while it trained.", picture.as_html()), (picture,)


def facts_part(facts: Sequence[str]) -> Part:
    """Return how to make the run and the report again."""
    return Section("How this was made", "All it takes to make the run and this page again.", bullets(facts)), ()

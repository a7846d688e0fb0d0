"""Before and after training, on the same images: where the model looks, and how it tells classes apart."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vision.backbones.family import DataConfig
from vision.evaluate import predict_logits
from vision.features import head_inputs
from vision.report.answers import Answers, spread_rows
from vision.report.explanations import EXPLANATIONS, choose_explanation
from vision.report.features import Projection, neighbour_agreement, on_a_plane
from vision.report.figure import png_of
from vision.report.page import Picture, Section, bar_cell, percent, table
from vision.report.pictures.heat_maps import HeatRow, heat_map_picture
from vision.report.pictures.projection import projection_picture
from vision.report.sections import Part
from vision.transforms import normalise

BATCH = 16  # images explained at a time
LOST = " The model before training is not kept with this run, so only the trained one is shown."


@dataclass(frozen=True)
class Models:
    """The models to look at, by title: before training, if it is still there, and after.

    Args:
        by_title: in the order shown; the last is the trained one.
        data: what they expect of an image.
        head: name of the module that makes the logits.
    """

    by_title: dict[str, nn.Module]
    data: DataConfig
    head: str

    @property
    def trained(self) -> nn.Module:
        """The model after training."""
        return list(self.by_title.values())[-1]


def looks_part(models: Models, answers: Answers, explanation: str, count: int, bar: Any) -> Part:
    """Return heat maps of each model on the same images, for the class the trained model finds likeliest.

    Args:
        models: what to explain.
        answers: of the trained model.
        explanation: a registered name, or "auto".
        count: images to explain.
        bar: a progress bar with `update`, one step an image and model.
    """
    rows = spread_rows(len(answers.pixels.labels), count)
    values = answers.pixels.values[rows]
    inputs, targets = normalise(values, models.data), answers.targets[rows]
    name = choose_explanation(explanation, models.trained, inputs[:1])
    found = []
    for title, model in models.by_title.items():
        heats = []
        for part, target in zip(inputs.split(BATCH), targets.split(BATCH), strict=True):
            heats.append(EXPLANATIONS.get(name).explain(model, part, target))
            bar.update(len(part))
        said = answers.take(rows, predict_logits(model, values, models.data))
        found.append(HeatRow(title, torch.cat(heats), said.names(said.predicted), said.image_right.tolist()))
    truths = answers.names(answers.truth[rows])
    way = EXPLANATIONS.get(name).title
    alt = f"{way} heat maps of {len(rows)} test images, {' and '.join(models.by_title)}."
    caption = "On top the true class; below each map what that model answers, red where it is wrong."
    picture = Picture("heat_maps", png_of(heat_map_picture(values, truths, found)), alt, caption)
    text = (
        f"{way} of the same images, asked about the class the trained model finds likeliest: what glows counts most. "
        "Each map has its own scale." + (LOST if len(models.by_title) == 1 else "")
    )
    return Section("Where it looks", text, picture.as_html()), (picture,)


def features_part(models: Models, answers: Answers, projection: Projection, count: int, seed: int) -> Part:
    """Return the features of the same images on a plane, with how many nearest neighbours are of the same class.

    Args:
        models: whose features.
        answers: of the trained model.
        projection: "tsne" or "pca".
        count: images to draw.
        seed: of t-SNE.
    """
    rows = spread_rows(len(answers.pixels.labels), count)
    groups, names = answers.groups()
    values, labels = answers.pixels.values[rows], groups[rows]
    planes, agreements = [], []
    for title, model in models.by_title.items():
        features = head_inputs(model, models.head, values, models.data)
        planes.append((title, on_a_plane(features, projection, seed)))
        agreements.append((title, (bar_cell(neighbour_agreement(features, labels)),)))
    way = "t-SNE" if projection == "tsne" else "principal components"
    alt = f"{way} of the features of {len(rows)} test images, coloured by class, {' and '.join(models.by_title)}."
    picture = Picture("features", png_of(projection_picture(planes, labels.numpy(), names)), alt)
    listed = table("Nearest other image is of the same class", ("features", "share of images"), agreements)
    chance = percent(float(torch.bincount(labels).double().square().sum()) / len(labels) ** 2)
    text = (
        f"What the classifier's last layer sees of {len(rows)} test images, laid out on a plane by {way}. Distances "
        f"on the plane are a hint only; the table is measured on the features themselves, where chance is {chance}."
    )
    return Section("How it tells classes apart", text, picture.as_html() + listed), (picture,)

"""Scores of a classifier on images, by its task: accuracy, F1, confusion matrix, mean average precision."""

from pathlib import Path

import torch
from torch import nn

from shared_peft.errors import DataError, RunError
from shared_peft.training import RunFolder
from vision.backbones.family import DataConfig
from vision.datasets import open_images
from vision.tasks import TASKS, Scores, task_of
from vision.trained import load_model, read_description
from vision.transforms import Pixels, load_pixels, normalise


@torch.inference_mode()
def predict_logits(model: nn.Module, values: torch.Tensor, data: DataConfig, batch_size: int = 128) -> torch.Tensor:
    """Run the model over images in eval mode.

    Args:
        model: the classifier; its mode is restored afterwards.
        values: uint8, shape (images, channels, size, size).
        data: what the model expects.
        batch_size: images at a time.

    Returns:
        Logits on the CPU, shape (images, classes).
    """
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return torch.cat([model(normalise(part.to(device), data)).float().cpu() for part in values.split(batch_size)])
    finally:
        for module, training in modes.items():
            module.training = training


def evaluate(model: nn.Module, pixels: Pixels, data: DataConfig, n_classes: int) -> Scores:
    """Score the model on labelled images.

    Args:
        model: the classifier.
        pixels: test images.
        data: what the model expects.
        n_classes: number of classes.

    Returns:
        The scores of the task that the labels belong to.
    """
    logits = predict_logits(model, pixels.values, data)
    return TASKS.get(task_of(pixels.labels)).score(logits, pixels.labels, n_classes)


def evaluate_run(
    run: Path, data: str | None = None, *, skip_broken: bool = False, progress: bool = False
) -> tuple[tuple[str, ...], Scores, tuple[str, ...]]:
    """Score a finished run on the test side of a data set that has the run's classes.

    Args:
        run: a finished run folder.
        data: a folder of class folders, or a registered data set; None is what the run was trained on.
        skip_broken: leave unreadable images out; else the first one is an error.
        progress: show a progress bar.

    Returns:
        Class names, scores, and the errors of the images left out.

    Raises:
        RunError: no finished vision run.
        DataError: classes the data set does not have, a broken image, or labels of another task.
    """
    description = read_description(run)
    data = own_data(run) if data is None else data
    images = open_images(data, description.classes)
    if (task := task_of(images.test.labels)) != description.task:
        raise DataError(data, f"must be {description.task} data, as the run's", task, "Point at data of the run's kind")
    label = "read test images" if progress else None
    pixels = load_pixels(images.test, description.data, skip_broken=skip_broken, progress=label)
    scores = evaluate(load_model(run, description), pixels, description.data, len(description.classes))
    return description.classes, scores, pixels.skipped


def own_data(run: Path) -> str:
    """Return the data that a run was trained on, as `--data` names them.

    Raises:
        RunError: the run does not say so.
    """
    config = RunFolder(run).describe("vision")["config"]
    if not isinstance(config.get("data"), str):
        raise RunError(run, "must say which images it was trained on", "no data", "Name them with --data")
    return config["data"]

"""Scores of a classifier on images: accuracy, macro-F1, per-class F1 and the confusion matrix."""

from pathlib import Path

import torch
from torch import nn

from shared_peft.training import Classification, score_classification
from vision.backbones.family import DataConfig
from vision.datasets import open_images
from vision.torchvision_ops import declare_missing_operators
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


def evaluate(model: nn.Module, pixels: Pixels, data: DataConfig, n_classes: int) -> Classification:
    """Score the model on labelled images.

    Args:
        model: the classifier.
        pixels: test images.
        data: what the model expects.
        n_classes: number of classes.

    Returns:
        The scores.
    """
    declare_missing_operators()  # torchmetrics imports torchvision where it is installed
    logits = predict_logits(model, pixels.values, data)
    return score_classification(logits.argmax(dim=1), pixels.labels, n_classes)


def evaluate_run(
    run: Path, data: str, *, skip_broken: bool = False, progress: bool = False
) -> tuple[tuple[str, ...], Classification, tuple[str, ...]]:
    """Score a finished run on the test side of a data set that has the run's classes.

    Args:
        run: a finished run folder.
        data: a folder of class folders, or a registered data set.
        skip_broken: leave unreadable images out; else the first one is an error.
        progress: show a progress bar.

    Returns:
        Class names, scores, and the errors of the images left out.

    Raises:
        RunError: no finished vision run.
        DataError: classes the data set does not have, or a broken image.
    """
    description = read_description(run)
    images = open_images(data, description.classes)
    label = "read test images" if progress else None
    pixels = load_pixels(images.test, description.data, skip_broken=skip_broken, progress=label)
    scores = evaluate(load_model(run, description), pixels, description.data, len(description.classes))
    return description.classes, scores, pixels.skipped

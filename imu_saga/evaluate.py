"""Scores on windows of people a model never saw."""

import numpy as np
import torch
from torch import nn

from imu_saga.finetune import predict_probabilities
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError
from shared_peft.training import Classification, TrainedModel, score_classification


def check_fits(windows: WindowSet, run: TrainedModel) -> None:
    """Refuse windows that a run cannot read.

    Raises:
        DataError: another rate, window length, channel list or class list.
    """
    wanted = run.preprocessing
    pairs = (
        ("rate_hz", wanted["rate_hz"], float(windows.rate_hz), f"--rate-hz {wanted['rate_hz']:g}"),
        ("samples", wanted["samples"], windows.x.shape[1], f"--seconds {wanted['seconds']:g}"),
        ("gravity", wanted["gravity"], windows.gravity, f"--gravity {wanted['gravity']}"),
        ("channels", list(wanted["channels"]), list(windows.channels), "those channels"),
        ("classes", list(run.classes), list(windows.classes), "the data the run was trained for"),
    )
    for name, expected, came, option in pairs:
        same = np.isclose(expected, came, rtol=1e-6) if isinstance(expected, float) else expected == came
        if not same:
            raise DataError(f"windows.{name}", f"must be {expected} as in training", came, f"Use {option}")


def check_apart(windows: WindowSet, trained_on: list[str]) -> None:
    """Refuse windows of people the model was trained on.

    Raises:
        DataError: a subject stands on both sides.
    """
    shared = sorted(set(windows.subjects.tolist()) & set(trained_on))
    if shared:
        got = f"{len(shared)} in both: {', '.join(shared[:5])}"
        raise DataError("evaluate", "subjects must not have been trained on", got, "Evaluate on the test subjects")


def score_model(model: nn.Module, windows: WindowSet) -> Classification:
    """Score a model on the labelled windows of ``windows``.

    Returns:
        Accuracy, macro-F1, per-class F1 and the confusion matrix.

    Raises:
        DataError: no labelled window.
    """
    known = windows.subset(windows.labels >= 0)
    if not len(known):
        raise DataError("evaluate", "there must be labelled windows", 0, "Check the split and the labels")
    predicted = predict_probabilities(model, known.x).argmax(1)
    return score_classification(predicted, torch.from_numpy(known.labels), len(known.classes))


def score_labels(predicted: np.ndarray, windows: WindowSet) -> Classification:
    """Score class indices, shape (windows,), against the labels; unlabelled windows are left out."""
    known = windows.labels >= 0
    return score_classification(
        torch.from_numpy(predicted[known]), torch.from_numpy(windows.labels[known]), len(windows.classes)
    )

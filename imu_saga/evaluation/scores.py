"""Scores on windows of people a model never saw."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from imu_saga.evaluation.verification import open_set, template_claims
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


def full_scores(predicted: np.ndarray, windows: WindowSet) -> dict[str, Any]:
    """Score class indices as plain JSON values: all together, and each subject alone.

    Args:
        predicted: (n,) int64 class indices.
        windows: n windows; unlabelled ones are left out.

    Returns:
        The fields of Classification; "per_subject", macro-F1 by subject; "subject_macro_f1" with mean, std (of the
        sample; 0 for one subject) and worst over the subjects.
    """
    known = windows.labels >= 0
    if not known.any():
        raise DataError("evaluate", "there must be labelled windows", 0, "Check the split and the labels")
    alone = {
        str(subject): score_labels(predicted[rows], windows.subset(rows)).macro_f1
        for subject in np.unique(windows.subjects[known])
        for rows in [np.flatnonzero(known & (windows.subjects == subject))]
    }
    values = np.asarray(list(alone.values()))
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {
        **asdict(score_labels(predicted, windows)),
        "per_subject": alone,
        "subject_macro_f1": {"mean": float(values.mean()), "std": spread, "worst": float(values.min())},
    }


def side_scores(model: nn.Module, train: WindowSet, test: WindowSet, impostors: WindowSet) -> dict[str, Any]:
    """Score a model on its test side, and against impostors where there are any.

    Args:
        model: a Classifier, or a PeftModel around one.
        train: what it was trained on, for templates of the enrolled people.
        test: windows of the test side.
        impostors: windows of people never seen; may be empty.

    Returns:
        See full_scores; with impostors also "verification": Verification by way of scoring ("probability" or
        "embedding", against "unseen" or "enrolled" people) as plain JSON values.
    """
    test = test.subset(test.labels >= 0)
    probabilities = predict_probabilities(model, test.x).numpy()
    scores = full_scores(probabilities.argmax(axis=1), test)
    if not len(impostors):
        return scores
    train = train.subset(train.labels >= 0)
    attacks = predict_probabilities(model, impostors.x).numpy()
    enrolled, own, foreign = (embeddings(model, side.x) for side in (train, test, impostors))
    n_users = len(test.classes)
    ways = {
        "probability": open_set(probabilities, test.labels, attacks),
        "embedding": open_set(
            template_claims(enrolled, train.labels, own, n_users),
            test.labels,
            template_claims(enrolled, train.labels, foreign, n_users),
        ),
    }
    scores["verification"] = {
        f"{way}, {against} people": asdict(found) for way, both in ways.items() for against, found in both.items()
    }
    return scores


@torch.no_grad()
def embeddings(model: nn.Module, x: np.ndarray, batch_size: int = 512) -> np.ndarray:
    """Return what a Classifier's last layer sees, shape (windows, features), of windows in SI."""
    model.eval()
    classifier: Any = model  # a PeftModel hands attributes of its base through
    parts = [torch.from_numpy(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
    return torch.cat([classifier.head_input(part) for part in parts]).numpy()


def spread_text(scores: Mapping[str, Any]) -> str:
    """Return the lines about subjects and verification that stand below the classes."""
    lines = []
    if alone := scores.get("per_subject"):
        about, worst = scores["subject_macro_f1"], min(alone, key=alone.get)
        spread = f"macro-F1 {about['mean']:.3f} +- {about['std']:.3f}, worst {worst} {about['worst']:.3f}"
        lines.append(f"{len(alone)} subjects, each alone: {spread}")
    for way, found in scores.get("verification", {}).items():
        rejects = ", ".join(f"FRR {frr:.1%} at FAR {float(far):.1%}" for far, frr in found["frr_at_far"].items())
        lines.append(f"verification by {way}: EER {found['eer']:.1%}, {rejects}, {found['impostor']} false claims")
    return "".join(f"{line}\n" for line in lines)

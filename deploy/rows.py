"""Real rows that a variant's answers are measured on, and what is measured: difference, agreement, accuracy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from shared_peft.errors import ExportError
from shared_peft.training import LabelledRows, TrainedModel

CALIBRATION_EVERY, CALIBRATION_MOST = 4, 128  # ours: rows that scale activations, of every class; the rest measures
_LEAST = 8
_BATCH = 32

Runner = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class MeasuredRows:
    """Rows apart from those that calibrate.

    Args:
        calibration: inputs that scale activations, float32, shape (m, *input_shape); none without labelled rows.
        inputs: inputs to measure on, float32, shape (n, *input_shape).
        labels: their classes, int64, shape (n,); None where the run has no validation data.
    """

    calibration: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray | None


def rows_of(trained: TrainedModel, *, labelled: bool) -> MeasuredRows:
    """Return a run's validation rows in two parts, or its examples alone.

    Args:
        trained: what a run gave.
        labelled: whether validation data is needed; reading it may take a while.

    Raises:
        ExportError: it is needed, and the run has none or too little.
    """
    if not labelled:
        examples = trained.examples.cpu().numpy()
        return MeasuredRows(examples[:0], examples, None)
    fix = "Export where the run's data lies, or without --int8"
    if trained.validation is None:
        raise ExportError("int8", "must be measured on the run's validation data", "a run without any", fix)
    rows = trained.validation()
    _check(trained, rows)
    inputs, labels = rows.inputs.cpu().to(trained.examples.dtype).numpy(), rows.labels.cpu().numpy()
    chosen = np.arange(0, len(inputs), CALIBRATION_EVERY)[:CALIBRATION_MOST]
    rest = np.setdiff1d(np.arange(len(inputs)), chosen)
    return MeasuredRows(inputs[chosen], inputs[rest], labels[rest])


def _check(trained: TrainedModel, rows: LabelledRows) -> None:
    shape, labels = tuple(rows.inputs.shape), rows.labels
    fix = "Repair what the run's validation() returns"
    if len(shape) == 0 or shape[1:] != tuple(trained.input_shape) or len(rows.inputs) < _LEAST:
        must = f"inputs must have shape (n, {', '.join(map(str, trained.input_shape))}) with n of {_LEAST} or more"
        raise ExportError("validation data", must, shape, fix)
    top = len(trained.classes) - 1
    if labels.shape != (len(rows.inputs),) or labels.dtype != torch.int64 or labels.min() < 0 or labels.max() > top:
        must = f"labels must be {len(rows.inputs)} int64 numbers from 0 to {top}"
        raise ExportError("validation data", must, f"{labels.dtype}, shape {tuple(labels.shape)}", fix)


def answers(run: Runner, inputs: np.ndarray, batch: int = 0) -> np.ndarray:
    """Return logits, shape (n, classes), of inputs given ``batch`` at once; 0 leaves the choice free."""
    size = batch or _BATCH
    return np.concatenate([run(inputs[start : start + size]) for start in range(0, len(inputs), size)])


def compare_rows(expected: np.ndarray, got: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
    """Measure logits beside those of the fp32 file.

    Args:
        expected: logits of the fp32 file, shape (n, classes).
        got: logits of the variant, the same shape.
        labels: true classes, shape (n,); None where they are not known.

    Returns:
        rows, max_abs_difference and top1_agreement in [0, 1]; with labels also accuracy_fp32 and accuracy in [0, 1]
        and drop_points, the loss of accuracy [percentage points].

    Example:
        >>> logits = np.array([[2.0, 1.0], [0.0, 1.0]])
        >>> compare_rows(logits, logits[::-1], np.array([0, 1]))["drop_points"]
        100.0
    """
    difference = float(np.abs(expected.astype(np.float64) - got.astype(np.float64)).max())
    right = expected.argmax(1), got.argmax(1)
    measured = {
        "rows": float(len(expected)),
        "max_abs_difference": difference if np.isfinite(difference) else float("inf"),
        "top1_agreement": float((right[0] == right[1]).mean()),
    }
    if labels is not None:
        before, after = (float((answer == labels).mean()) for answer in right)
        measured |= {"accuracy_fp32": before, "accuracy": after, "drop_points": 100 * (before - after)}
    return measured

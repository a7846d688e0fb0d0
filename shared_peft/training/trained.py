"""A finished run as an exporter, an evaluator or a server needs it: model, input, classes, preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Inputs as the model takes them, with their classes.

    Args:
        inputs: preprocessed, float32, shape (n, *input_shape).
        labels: class indices, int64, shape (n,).
    """

    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class TrainedModel:
    """A model read back from a run folder.

    Args:
        kind: package that made it, "vision" or "imu_saga".
        model: the adapted model in eval mode (a PeftModel where the run used an adapter).
        build_base: makes the same architecture without any adapter, freshly initialised.
        input_name: name of the one input, "image" or "window".
        input_shape: its shape without the batch.
        classes: class names in the order of the logits.
        preprocessing: what must happen to raw data before it is fed, as plain JSON values with units.
        examples: a few real, preprocessed inputs, shape (n, *input_shape); their type is the input's.
        scores: the run's own test scores, as plain JSON values.
        details: backbone, method and seed of the run, as plain JSON values.
        validation: reads the run's own validation data when called, never its test data: what training left aside,
            else what it saw; None where a class is not what a row has.
        free_axes: axes of ``input_shape`` that may have another size, such as an image's height and width.
    """

    kind: str
    model: nn.Module
    build_base: Callable[[], nn.Module]
    input_name: str
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    examples: torch.Tensor
    scores: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    validation: Callable[[], LabelledRows] | None = None
    free_axes: tuple[int, ...] = ()

"""A bundle in the place of a run, so that imu_saga's streaming answers through onnxruntime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deploy.manifest import Manifest
from deploy.multi.manifest import MultiManifest
from deploy.preprocessor import INSIDE
from shared_peft.errors import DataError
from shared_peft.training import TrainedModel


class BundleModel(nn.Module):
    """One task of a bundle as a module without parameters, of windows in SI units.

    Args:
        answer: from windows in the model file's units to logits.
        scale_to_si: from the model file's units to SI.
    """

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray], scale_to_si: float | list[float]) -> None:
        super().__init__()
        self.answer, self.scale = answer, torch.tensor(scale_to_si)

    def forward(self, window: Tensor) -> Tensor:
        """Return logits, shape (windows, classes), of windows of shape (windows, samples, channels)."""
        return torch.from_numpy(self.answer((window / self.scale).numpy()))


def as_run(
    bundle: Path,
    manifest: Manifest | MultiManifest,
    classes: tuple[str, ...],
    answer: Callable[[np.ndarray], np.ndarray],
) -> TrainedModel:
    """Return one task of a bundle as imu_saga's streaming takes a run.

    Args:
        bundle: the bundle's folder.
        manifest: the bundle's.
        classes: the task's class names, in the order of the logits.
        answer: the task's logits of the model file's inputs.

    Raises:
        DataError: a bundle of another kind.
    """
    if manifest.kind != "imu_saga":
        raise DataError(bundle, "must be a bundle of imu_saga", manifest.kind, "Export a run of imu_saga")

    def no_base() -> nn.Module:
        raise DataError(bundle, "must be a run to be built again", "a bundle", "Load the run itself")

    inside = manifest.preprocessing.get(INSIDE, {})  # a graph that scales takes the sensor's units
    return TrainedModel(
        kind=manifest.kind,
        model=BundleModel(answer, inside.get("scale_to_si", 1.0)),
        build_base=no_base,
        input_name=manifest.input.name,
        input_shape=manifest.input.shape,
        classes=classes,
        preprocessing=manifest.preprocessing,
        examples=torch.zeros(0, *manifest.input.shape),
    )

"""A bundle in the place of a run, so that imu_saga's streaming answers through onnxruntime."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deploy.preprocessor import INSIDE
from shared_peft.errors import DataError
from shared_peft.training import TrainedModel

if TYPE_CHECKING:
    from deploy.runtime import BundleRunner


class BundleModel(nn.Module):
    """One task of a bundle as a module without parameters, of windows in SI units.

    Args:
        runner: the bundle; the task that is active now is kept.
    """

    def __init__(self, runner: "BundleRunner") -> None:
        super().__init__()
        self.runner, self.task = runner, runner.active
        inside = runner.manifest.preprocessing.get(INSIDE, {})
        self.scale = torch.tensor(inside.get("scale_to_si", 1.0))  # a graph that scales takes the sensor's units

    def forward(self, window: Tensor) -> Tensor:
        """Return logits, shape (windows, classes), of windows of shape (windows, samples, channels)."""
        return torch.from_numpy(self.runner.logits_of(self.task, (window / self.scale).numpy()))


def as_run(runner: "BundleRunner") -> TrainedModel:
    """Return the active task of a bundle as imu_saga's streaming takes a run.

    Raises:
        DataError: a bundle of another kind.
    """
    manifest = runner.manifest
    if manifest.kind != "imu_saga":
        raise DataError(runner.bundle, "must be a bundle of imu_saga", manifest.kind, "Export a run of imu_saga")

    def no_base() -> nn.Module:
        raise DataError(runner.bundle, "must be a run to be built again", "a bundle", "Load the run itself")

    return TrainedModel(
        kind=manifest.kind,
        model=BundleModel(runner),
        build_base=no_base,
        input_name=manifest.input.name,
        input_shape=manifest.input.shape,
        classes=runner.classes,
        preprocessing=manifest.preprocessing,
        examples=torch.zeros(0, *manifest.input.shape),
    )

"""From a run folder to a trained model, through the package that made the run."""

import importlib
from pathlib import Path

from shared_peft.errors import RunError
from shared_peft.training import RunFolder, TrainedModel

LOADERS = {"imu_saga": "imu_saga.trained", "vision": "vision.trained"}
"""Module with ``load_run(path)`` by the first part of a run's kind; imported when a run asks for it."""


def load_trained(path: Path) -> TrainedModel:
    """Read the model of a run back.

    Args:
        path: a run folder of vision or imu_saga.

    Returns:
        The trained model with its input, classes and preprocessing.

    Raises:
        RunError: no run in the folder, or one of another kind.
    """
    kind = str(RunFolder(path).describe().get("kind", ""))
    family = kind.partition(".")[0]
    if family not in LOADERS:
        must = f"the run's kind must begin with {' or '.join(LOADERS)}"
        raise RunError(path, must, repr(kind), "Point at a run of one of these packages")
    return importlib.import_module(LOADERS[family]).load_run(path)

"""Baselines, one file each; importing the package registers them all."""

from imu_saga.baseline import BASELINES, Baseline
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["BASELINES", "Baseline"]

"""Pre-training objectives, one file each; importing the package registers them all."""

from imu_saga.objective import OBJECTIVES, Objective
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["OBJECTIVES", "Objective"]

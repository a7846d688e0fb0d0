"""IMU data sets: one file each, registered by itself."""

from imu_saga.dataset import DATASETS, ImuDataset, open_dataset
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["DATASETS", "ImuDataset", "open_dataset"]

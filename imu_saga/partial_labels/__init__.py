"""Ways to learn from candidate labels, one file each; importing the package registers them all."""

from imu_saga.partial_labels.method import PARTIAL_LABEL_METHODS, PartialLabels
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["PARTIAL_LABEL_METHODS", "PartialLabels"]

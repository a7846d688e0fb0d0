"""No augmentation: the images as they are."""

from dataclasses import dataclass

import torch

from vision.augmentation import AUGMENTATIONS, Augmentation, TrainingBatch


@AUGMENTATIONS.register("none")
@dataclass(frozen=True)
class Unchanged(Augmentation):
    """Leaves the images as they are."""

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Return the batch; see Augmentation."""
        return batch

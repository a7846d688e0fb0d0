"""Light: what does no harm to photographs (the standard of He et al. 2016, arXiv:1512.03385, section 4.2)."""

from dataclasses import dataclass

import torch

from vision.augmentation import AUGMENTATIONS, Augmentation, TrainingBatch
from vision.augmentations.mirror import Mirror
from vision.augmentations.shift import Shift


@AUGMENTATIONS.register("light")
@dataclass(frozen=True)
class Light(Augmentation):
    """Shifts each image and mirrors half of them: `shift+mirror`."""

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Shift, then mirror; see Augmentation."""
        return Mirror().apply(Shift().apply(batch, generator), generator)

"""Mirror: left and right change places; not for digits, letters and signs."""

from dataclasses import dataclass, replace

import torch

from vision.augmentation import AUGMENTATIONS, Augmentation, TrainingBatch


@AUGMENTATIONS.register("mirror")
@dataclass(frozen=True)
class Mirror(Augmentation):
    """Mirrors half of the images left to right."""

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Flip images at random; see Augmentation."""
        mirrored = torch.rand(len(batch.values), 1, generator=generator) < 0.5
        return replace(batch, values=torch.where(mirrored[:, :, None, None], batch.values.flip(3), batch.values))

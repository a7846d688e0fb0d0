"""Shift: objects stand a little elsewhere (the padded random crop of He et al. 2016, arXiv:1512.03385, section 4.2)."""

from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from vision.augmentation import AUGMENTATIONS, Augmentation, TrainingBatch


@AUGMENTATIONS.register("shift")
@dataclass(frozen=True)
class Shift(Augmentation):
    """Moves each image by up to an eighth of its size; edges repeat by reflection."""

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Cut each image out of its padded self at a place of its own; see Augmentation."""
        values = batch.values
        count, channels, size = values.shape[:3]
        reach = min(max(1, size // 8), size - 1)  # reflection has no more than size - 1 to repeat
        padded = functional.pad(values.float(), (reach,) * 4, mode="reflect").to(values.dtype)
        top, left = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=generator)
        rows, columns = top + torch.arange(size), left + torch.arange(size)
        image = torch.arange(count)[:, None, None, None]
        channel = torch.arange(channels)[None, :, None, None]
        return replace(batch, values=padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]])

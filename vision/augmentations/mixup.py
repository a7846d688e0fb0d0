"""Mixup (Zhang et al. 2018, arXiv:1710.09412, section 2): two images at once, and a share of both classes."""

from dataclasses import dataclass

import torch

from vision.augmentation import AUGMENTATIONS, Augmentation, TrainingBatch
from vision.augmentations.draws import draw_partners, draw_shares


@AUGMENTATIONS.register("mixup")
@dataclass(frozen=True)
class Mixup(Augmentation):
    """Blends each image with another of the batch; both classes count, each by its share.

    Args:
        alpha: of the Beta distribution the shares come from; the smaller, the less is blended. 0.2 is the paper's
            lower one for ImageNet (section 3.1: 0.1 to 0.4).
    """

    alpha: float = 0.2

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Blend by shares drawn for each image; see Augmentation."""
        own = draw_shares(len(batch.values), self.alpha, generator)
        partners = draw_partners(len(batch.values), generator)
        weight = own[:, None, None, None]
        blended = weight * batch.values + (1 - weight) * batch.values[partners]
        return batch.mixed(blended.round().to(batch.values.dtype), partners, own)

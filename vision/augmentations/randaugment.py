"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) as torchvision's transforms v2 do it, on uint8."""

from dataclasses import dataclass, replace

import torch

from vision.augmentation import AUGMENTATIONS, Augmentation, TrainingBatch
from vision.torchvision_ops import declare_missing_operators


@AUGMENTATIONS.register("randaugment")
@dataclass(frozen=True)
class RandAugment(Augmentation):
    """Changes each image in two random ways: sheared, moved, turned, brighter, sharper, posterised and the like.

    torchvision draws from torch's global source and knows no generator. So one number drawn from the generator seeds
    the global source for the batch, and the global source is put back afterwards: the images depend on the generator
    alone, and nothing else in the process notices.

    Args:
        changes: one after the other on each image, N in section 3 of the paper.
        magnitude: how strong, in [0, 30], M in section 3.
    """

    changes: int = 2
    magnitude: int = 9

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Change each image by draws of its own; see Augmentation."""
        declare_missing_operators()
        from torchvision.transforms import v2  # noqa: PLC0415  (slow to import)

        transform = v2.RandAugment(self.changes, self.magnitude)
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return replace(batch, values=torch.stack([transform(image) for image in batch.values]))

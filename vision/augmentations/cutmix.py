"""CutMix (Yun et al. 2019, arXiv:1905.04899, section 3.1): a box of another image, and a share of both classes."""

from dataclasses import dataclass

import torch

from vision.augmentation import AUGMENTATIONS, Augmentation, TrainingBatch
from vision.augmentations.draws import draw_partners, draw_shares


@AUGMENTATIONS.register("cutmix")
@dataclass(frozen=True)
class Cutmix(Augmentation):
    """Pastes a box of another image of the batch into each; both classes count, each by the area it shows.

    Args:
        alpha: of the Beta distribution the area comes from; 1 makes every area equally likely, as in the paper.
    """

    alpha: float = 1.0

    def apply(self, batch: TrainingBatch, generator: torch.Generator) -> TrainingBatch:
        """Paste boxes drawn for each image; see Augmentation."""
        count, size = len(batch.values), batch.values.shape[-1]
        partners = draw_partners(count, generator)
        inside = _boxes(draw_shares(count, self.alpha, generator), size, generator)
        pasted = torch.where(inside[:, None], batch.values[partners], batch.values)
        return batch.mixed(pasted, partners, 1 - inside.float().mean((1, 2)))


def _boxes(own: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Return where the box lies, bool, shape (images, size, size): sides size * sqrt(1 - own), centred anywhere.

    Part of a box may lie outside (Eq. 2 and Appendix A of the paper), so the share follows from what lies inside.
    """
    side = (size * (1 - own).sqrt()).round().long()
    centre = torch.randint(0, size, (2, len(own)), generator=generator)
    first = (centre - side // 2)[:, :, None]
    place = torch.arange(size)
    rows, columns = (place >= first) & (place < first + side[:, None])
    return rows[:, :, None] & columns[:, None, :]

"""What a segmenter learns by: cross-entropy of pixels, and the soft Dice overlap of classes."""

import torch
from torch.nn import functional

from vision.segmentation.masked import IGNORE


def mask_loss(logits: torch.Tensor, masks: torch.Tensor, dice: float) -> torch.Tensor:
    """Return cross-entropy plus ``dice`` times the Dice loss.

    Args:
        logits: (batch, classes, height, width).
        masks: class indices, 255 is left out, shape (batch, height, width).
        dice: weight of the Dice loss; 0 turns it off.
    """
    masks = masks.long()
    entropy = functional.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none")
    total = entropy.sum() / (masks != IGNORE).sum().clamp_min(1)  # zero, not nan, where a batch says nothing
    return total + dice * dice_loss(logits, masks) if dice else total


def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return one minus the mean soft Dice overlap (Milletari et al. 2016, arXiv:1606.04797, squared).

    The mean is over the classes the batch's masks hold; a class no mask holds has no overlap to gain.

    Args:
        logits: (batch, classes, height, width).
        masks: int64 class indices, 255 is left out, shape (batch, height, width).
    """
    known = masks != IGNORE
    truth = functional.one_hot(masks.where(known, 0), logits.shape[1]).movedim(-1, 1) * known[:, None]
    share = logits.softmax(dim=1) * known[:, None]
    everywhere = (0, 2, 3)
    overlap = 2 * (share * truth).sum(everywhere)
    size = (share**2).sum(everywhere) + truth.sum(everywhere)
    held = truth.sum(everywhere) > 0
    return 1 - (overlap / size.clamp_min(1e-6))[held].sum() / held.sum().clamp_min(1)

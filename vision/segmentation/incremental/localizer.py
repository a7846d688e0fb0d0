"""Where a class is, learnt from whether it is in the image (Cermelli et al. 2022, arXiv:2112.01882).

The pooling, its focal term and the constant score of the background are those of Araslanov and Roth 2020
(arXiv:2005.08104). WILSON learns the background's score from the old model too; but to the old model a new
class is background, and where that is learnt to be certain no seed of a new class ever wins.
"""

import torch
from torch import nn
from torch.nn import functional

FOCAL_FLOOR = 0.01  # arXiv:2005.08104
FOCAL_POWER = 12.0  # ours: 3 in the paper, which makes an object of a twentieth of the image three times too large
BACKGROUND_SCORE = 2.0  # ours: 1 in the paper, with the same effect
_GROUPS = 8  # ours


class Localizer(nn.Module):
    """Three convolutions from a segmenter's embedding to a score by class, the background first.

    Args:
        width: channels of the embedding.
        num_classes: all classes, old and new, the background included.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, num_classes - 1, 1),
        )

    def forward(self, embedded: torch.Tensor) -> torch.Tensor:
        """Map (batch, width, height, width) to scores (batch, classes, height, width)."""
        scores = self.layers(embedded)
        return torch.cat([torch.full_like(scores[:, :1], BACKGROUND_SCORE), scores], dim=1)


def pooled_scores(scores: torch.Tensor) -> torch.Tensor:
    """Return one score a class: normalised global weighted pooling plus the focal term.

    With m the softmax of the scores z over the classes: sum(m z) / (1 + sum(m)), a mean of z where the class is; and
    (1 - mean(m))^12 log(0.01 + mean(m)), which asks a class that is there to cover some of the image.

    Args:
        scores: (batch, classes, height, width).

    Returns:
        (batch, classes).
    """
    scores = scores.flatten(2)
    shares = scores.softmax(dim=1)
    pooled = (scores * shares).sum(2) / (1 + shares.sum(2))
    covered = shares.mean(2)
    return pooled + (1 - covered) ** FOCAL_POWER * torch.log(FOCAL_FLOOR + covered)


def localizer_loss(scores: torch.Tensor, presence: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Return what the localiser learns by (arXiv:2112.01882).

    Image-level labels teach the new classes, the old model's probabilities the old ones; the background is the rest.

    Args:
        scores: (batch, classes, height, width), old classes first.
        presence: which new classes the image shows, 0 or 1, (batch, new classes).
        old: the old model's probabilities, (batch, old classes, height, width).
    """
    known = old.shape[1]
    labelled = functional.binary_cross_entropy_with_logits(pooled_scores(scores)[:, known:], presence)
    return labelled + functional.binary_cross_entropy_with_logits(scores[:, 1:known], old[:, 1:])

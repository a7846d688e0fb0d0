"""HOMI: high-order label correlations, explicit and of high rank (Si et al. 2022, arXiv:2207.04197).

The published model is linear. With features X, labels Y, a classifier (W, z), a square correlation matrix B with an
offset t, and the Laplacian L of a graph of similar images it minimises

    |Y - F|^2 + beta |Y - Y B - t|^2 + gamma tr(O' L O) + lambda (|B|^2 + |t|^2 + ...),   F = X W + z,  O = F B + t

and answers with O: each label is explained by all others together, not in pairs, and B keeps the rank of the labels.

Ours, to train it by gradients behind any head: F are the head's logits; the labels of the second term are +1 and -1, on
the scale of logits; the first term is binary cross-entropy, and is taken of the answer O; the graph joins the images of
a batch by the correlation of their features; the terms are means, not sums, so gamma is another number. B and t start
at the minimum of the second and the last term, in closed form.
"""

import torch
from torch import nn

from vision.correlations.head import LABEL_CORRELATIONS, LabelCorrelation

RECONSTRUCTION = 2.0  # beta, and RIDGE is lambda, as in the authors' program
RIDGE = 1.0
SMOOTHNESS = 0.01  # gamma, ours
NEIGHBOURS = 10


@LABEL_CORRELATIONS.register("homi")
class Homi(LabelCorrelation):
    """Answers with ``logits @ correlation + offset``.

    Args:
        classes: number of labels.
    """

    def __init__(self, classes: int) -> None:
        nn.Module.__init__(self)
        self.correlation = nn.Parameter(torch.eye(classes))  # B
        self.offset = nn.Parameter(torch.zeros(classes))  # t
        self.images = 1

    @torch.no_grad()
    def start(self, labels: torch.Tensor) -> None:
        """Fill B and t with the ridge regression of the labels on themselves.

        Args:
            labels: 0 or 1, shape (images, classes).
        """
        signed = 2 * labels.double() - 1
        given = torch.cat([signed, signed.new_ones(len(signed), 1)], dim=1)
        ridge = RIDGE / RECONSTRUCTION * torch.eye(given.shape[1], dtype=given.dtype)
        solved = torch.linalg.solve(given.T @ given + ridge, given.T @ signed)
        self.correlation.copy_(solved[:-1])
        self.offset.copy_(solved[-1])
        self.images = len(labels)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Map logits (batch, classes, ...) to logits of the same shape."""
        return (logits.movedim(1, -1) @ self.correlation + self.offset).movedim(-1, 1)

    def penalty(self, labels: torch.Tensor, features: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """Return reconstruction, ridge and smoothness, a scalar; see `LabelCorrelation.penalty`."""
        signed = 2 * labels.float() - 1
        reconstruction = (signed - signed @ self.correlation - self.offset).square().mean()
        ridge = (self.correlation.square().sum() + self.offset.square().sum()) / (self.images * labels.shape[1])
        graph = similar_images(features.flatten(1).float())
        between = torch.cdist(answer.float(), answer.float(), compute_mode="donot_use_mm_for_euclid_dist").square()
        smoothness = (graph * between).sum() / (graph.sum().clamp_min(1e-12) * labels.shape[1])
        return RECONSTRUCTION * reconstruction + RIDGE * ridge + SMOOTHNESS * smoothness


def similar_images(features: torch.Tensor) -> torch.Tensor:
    """Return the graph of the images of a batch: correlations with the nearest ones, symmetric, nothing below zero.

    Args:
        features: shape (images, values).

    Returns:
        Weights in [0, 1], shape (images, images), zero on the diagonal.
    """
    centred = features - features.mean(dim=1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
    alike = (unit @ unit.T).fill_diagonal_(0).clamp_min(0)
    nearest = alike.topk(min(NEIGHBOURS, len(alike)), dim=1)
    kept = torch.zeros_like(alike).scatter_(1, nearest.indices, nearest.values)
    return (kept + kept.T) / 2

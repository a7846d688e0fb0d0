"""PLCP: a partner that tells what a window is not, in mutual supervision (Si et al. 2024, arXiv:2312.11034).

The partner C (a sigmoid layer on the network's features) is fitted to a non-confidence Q, and each side teaches the
other through a blur, so that neither grows certain alone. With Y the candidates, O the network's answer, l classes:

    P <- clip(m P + (1 - m) O, 0, Y)                            what the network has said so far
    Q  = argmin |Q - C|^2 + g <blur(P), Q>, 1 - Y <= Q <= 1, Q 1 = l - 1     the collaborative term
    R <- clip(m R + (1 - m) C, 1 - Y, 1)                        what the partner has said so far
    blur(A)_c = exp(k A_c) / sum over the candidates of exp(k A), 0 for non-candidates

These are the updates of the authors' released code and k, m and g those of its example; Q has the closed form
1 - (nearest distribution over the candidates to 1 - C + g/2 blur(P)). The base classifier is PRODEN here, its weights
multiplied by blur(1 - R); that product, cross-entropy in place of least squares, and taking turns at every batch
instead of at every fit, are ours.
"""

import math
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from imu_saga.partial_labels.belief import mean_by_row, projected, within
from imu_saga.partial_labels.method import PARTIAL_LABEL_METHODS, PartialLabels, second_classifier

BLUR, MOMENTUM, COLLABORATION = math.exp(-1), 0.5, 2.0  # k, m, g


@final
@PARTIAL_LABEL_METHODS.register("plcp")
class Plcp(PartialLabels):
    """PRODEN and a partner that tells what a window is not; each teaches the other through a blur.

    ``partner`` is C, ``said`` is P and ``denied`` is R of the module.
    """

    citation: ClassVar[str] = "Si et al. 2024, Partial label learning with a partner, arXiv:2312.11034"
    said: Tensor
    denied: Tensor

    def __init__(self, candidates: Tensor, width: int, label_smoothing: float = 0.0) -> None:
        super().__init__(candidates, width, label_smoothing)
        self.partner = second_classifier(width, candidates.shape[1])
        self.register_buffer("said", self.confidence.clone())
        self.register_buffer("denied", 1 - candidates.to(self.confidence.dtype))

    def revise(self, features: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Take both turns for the batch's windows; return the partner's cross-entropy against Q."""
        scores = self.partner(features)
        places, answer = mean_by_row(rows, logits.softmax(1))
        _, against = mean_by_row(rows, scores.detach().sigmoid())
        candidates = self.candidates[places]
        said = (MOMENTUM * self.said[places] + (1 - MOMENTUM) * answer).masked_fill(~candidates, 0)
        denied = (MOMENTUM * self.denied[places] + (1 - MOMENTUM) * against).masked_fill(~candidates, 1)
        excluded = 1 - projected(1 - against + COLLABORATION / 2 * within(BLUR * said, candidates), candidates)
        self.said[places], self.denied[places] = said, denied
        prior = BLUR * (1 - self.denied[rows])
        self.confidence[places] = mean_by_row(rows, within(logits + prior, self.candidates[rows]))[1]
        return functional.binary_cross_entropy_with_logits(scores, excluded[torch.searchsorted(places, rows)])

"""PL-CL: an ordinary and a complementary classifier as adversaries (Jia, Si and Zhang 2023, arXiv:2305.09897).

The paper fits two linear classifiers O and C by least squares to a confidence P and a non-confidence Q and solves

    min |O - P|^2 + alpha |C - Q|^2 + beta |1 - P - Q|^2,  0 <= P <= Y, P 1 = 1, 1 - Y <= Q <= 1

in turns, Y being the candidates. Here O is the network's softmax and C a sigmoid layer on its features, both fitted by
cross-entropy, and P and Q are solved for the windows of each batch (ours). The paper's term for a graph of neighbours
is left out: features move while a network is trained. The updates of P and Q are those of the authors' released code.
"""

from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from imu_saga.partial_labels.belief import mean_by_row, projected
from imu_saga.partial_labels.method import PARTIAL_LABEL_METHODS, PartialLabels, second_classifier

ALPHA, BETA = 0.5, 0.5  # the released example's


@final
@PARTIAL_LABEL_METHODS.register("pl_cl")
class PlCl(PartialLabels):
    """A complementary classifier tells what a window is not; what both classifiers agree on is the label.

    ``complementary`` is C of the module.
    """

    citation: ClassVar[str] = "Jia, Si and Zhang 2023, Complementary classifier induced partial label learning, KDD"

    def __init__(self, candidates: Tensor, width: int, label_smoothing: float = 0.0) -> None:
        super().__init__(candidates, width, label_smoothing)
        self.complementary = second_classifier(width, candidates.shape[1])

    def revise(self, features: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Solve Q, then P; return C's cross-entropy against Q."""
        scores = self.complementary(features)
        places, ordinary = mean_by_row(rows, logits.softmax(1))
        _, against = mean_by_row(rows, scores.detach().sigmoid())
        candidates = self.candidates[places]
        adversary = (ALPHA * against + BETA * (1 - self.confidence[places])) / (ALPHA + BETA)
        excluded = adversary.clamp(0, 1).masked_fill(~candidates, 1)
        self.confidence[places] = projected((ordinary + BETA * (1 - excluded)) / (1 + BETA), candidates)
        return functional.binary_cross_entropy_with_logits(scores, excluded[torch.searchsorted(places, rows)])

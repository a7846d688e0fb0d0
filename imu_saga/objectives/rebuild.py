"""Rebuild what the mask hides, sample by sample: LIMU-BERT's objective, and Saga's."""

from typing import ClassVar

from torch import Tensor

from imu_saga.encoder import Encoder
from imu_saga.objective import OBJECTIVES, Objective


@OBJECTIVES.register("rebuild")
class Rebuilder(Objective):
    """Mean squared error of the hidden and measured entries, in the network's units.

    Args:
        encoder: the backbone; its own decoder is trained beside it.
    """

    citation: ClassVar[str] = "Saga, arXiv:2504.11726; LIMU-BERT, Xu et al. 2021"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.decoder = encoder.make_decoder()

    def rebuild(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rebuilt and the true windows in the network's units, shape (windows, samples, channels)."""
        columns = self.encoder.columns
        guess = self.decoder(self.encoder(x.masked_fill(mask, 0.0))).index_select(2, columns)
        return guess, self.encoder.scaled(x).index_select(2, columns)

    def forward(self, shown: Tensor, mask: Tensor, valid: Tensor, truth: Tensor) -> Tensor:
        """Return each window's mean squared error over hidden and measured entries, shape (windows,)."""
        guess, wanted = self.rebuild(shown, mask)
        counted = (mask & valid.unsqueeze(2)).to(wanted.dtype)
        return ((guess - wanted).square() * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)

"""Progressive identification of the true label (Lv et al. 2020, PRODEN, arXiv:2002.08053)."""

from typing import ClassVar, final

from torch import Tensor

from imu_saga.partial_labels.belief import mean_by_row, within
from imu_saga.partial_labels.method import PARTIAL_LABEL_METHODS, PartialLabels


@final
@PARTIAL_LABEL_METHODS.register("proden")
class Proden(PartialLabels):
    """Candidates weigh what the network gave them when it last saw the window: w_c = p_c / sum over S of p, c in S."""

    citation: ClassVar[str] = "Lv et al. 2020, Progressive identification of true labels, arXiv:2002.08053"

    def revise(self, features: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Weigh the candidates by the network's answer."""
        places, shares = mean_by_row(rows, within(logits, self.candidates[rows]))
        self.confidence[places] = shares
        return logits.new_zeros(())

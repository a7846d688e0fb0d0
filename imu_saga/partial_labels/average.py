"""Average loss: every candidate counts the same, for good (the averaging baseline of partial-label learning)."""

from typing import ClassVar, final

from torch import Tensor

from imu_saga.partial_labels.method import PARTIAL_LABEL_METHODS, PartialLabels


@final
@PARTIAL_LABEL_METHODS.register("average")
class Average(PartialLabels):
    """The mean cross-entropy over a window's candidates: 1/|S| sum over c in S of -log p_c."""

    citation: ClassVar[str] = "Cour, Sapp and Taskar 2011, Learning from partial labels, JMLR 12"

    def revise(self, features: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Change nothing."""
        return logits.new_zeros(())
